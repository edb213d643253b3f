import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.data import augment
from raysweep.settings import Augmentation

shares = st.floats(0, 1)
intervals = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: tuple(sorted(pair)))
augmentations = st.builds(
    Augmentation,
    crop_scale=intervals,
    crop_ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(lambda pair: tuple(sorted(pair))),
    flip_p=shares,
    vertical_flip_p=shares,
    rotation_deg=st.floats(0, 180),
    jitter_p=shares,
    gamma=st.floats(0, 0.9),
    blur_p=shares,
    blur_sigma_px=intervals,
    noise_p=shares,
    solarise_p=shares,
    elastic_p=shares,
    elastic_px=st.floats(0, 20),
    bias_p=shares,
    cutout_p=shares,
    cutout_scale=intervals,
)
sides = st.integers(1, 60)
shape_lists = st.lists(st.tuples(sides, sides), min_size=1, max_size=5)
seeds = st.integers(0, 2**32)


@given(augmentations, shape_lists, seeds)
@settings(max_examples=60, deadline=None)
def test_crops_lie_inside_their_slices(augmentation, shapes, seed):
    p = augment.draw(augmentation, torch.tensor(shapes), torch.Generator().manual_seed(seed))
    for (y0, x0, h, w), (H, W) in zip(p.boxes.tolist(), shapes, strict=True):
        assert y0 >= 0
        assert x0 >= 0
        assert 1 <= h <= H - y0
        assert 1 <= w <= W - x0


@given(augmentations, shape_lists, seeds, st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_slices_give_a_finite_batch_and_no_label_is_invented(augmentation, shapes, seed, size, channels):
    generator = torch.Generator().manual_seed(seed)
    slices = [torch.rand(channels, *shape, generator=generator) for shape in shapes]
    masks = [torch.randint(0, 5, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    p = augment.draw(augmentation, torch.tensor(shapes), generator)
    x, y = augment.apply(slices, p, size, masks=masks)
    assert (x.shape, x.dtype) == ((len(shapes), channels, size, size), torch.float32)
    assert (y.shape, y.dtype) == ((len(shapes), size, size), torch.int64)
    assert bool(torch.isfinite(x).all())
    for i, mask in enumerate(masks):
        allowed = set(mask.unique().tolist()) | ({0} if p.angle_deg[i] != 0 or p.elastic_px[i] > 0 else set())
        assert set(y[i].unique().tolist()) <= allowed
