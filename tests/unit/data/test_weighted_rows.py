"""Resizing and blurring by sums of rows, against torch's own operations."""

import pytest
import torch
import torch.nn.functional as F

from raysweep.data import resample, weighted_rows

SHAPES = [(64, 48), (40, 90), (33, 33), (64, 48), (128, 20), (17, 64)] * 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_crops(shapes) -> torch.Tensor:
    """Boxes (B, 4) inside slices of these shapes, none of them the whole."""
    return torch.tensor([(k % 5, k % 3, h - k % 5 - k % 7, w - k % 3 - k % 4) for k, (h, w) in enumerate(shapes)])


@pytest.mark.parametrize("size", [8, 32, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_mixed_shapes_are_resized_and_mirrored_as_torch_does(size, channels):
    slices = [torch.rand(channels, *shape, generator=generator(k)) for k, shape in enumerate(SHAPES)]
    boxes = some_crops(SHAPES)
    flips = torch.randint(0, 2, (len(SHAPES), 2), generator=generator()).bool()
    got = weighted_rows.crop_resize(slices, boxes, size, flips)
    for i, (y0, x0, h, w) in enumerate(boxes.tolist()):
        crop = slices[i][None, :, y0 : y0 + h, x0 : x0 + w]
        expected = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
        mirrored = expected.flip([axis + 1 for axis in range(2) if flips[i, axis]])
        torch.testing.assert_close(got[i], mirrored, atol=1e-5, rtol=0)


def test_a_crop_has_the_same_bits_alone_and_among_others():
    slices = [torch.rand(1, *shape, generator=generator(k)) for k, shape in enumerate(SHAPES)]
    boxes = some_crops(SHAPES)
    together = weighted_rows.crop_resize(slices, boxes, 24)
    for i, box in enumerate(boxes):
        assert torch.equal(weighted_rows.crop_resize([slices[i]], box[None], 24)[0], together[i]), i
    same = [torch.rand(1, 40, 90, generator=generator(k)) for k in range(20)]
    boxes = some_crops([(40, 90)] * 20)
    stacked = weighted_rows.crop_resize(torch.stack(same), boxes, 24)
    assert torch.equal(stacked, weighted_rows.crop_resize(same, boxes, 24))


def test_nothing_outside_a_crop_reaches_its_result():
    inside = torch.rand(1, 20, 30, generator=generator())
    around = torch.full((1, 60, 70), torch.nan)
    around[:, 10:30, 25:55] = inside
    whole = torch.rand(1, 60, 70, generator=generator())  # a larger crop of the same batch
    boxes = torch.tensor([(10, 25, 20, 30), (0, 0, 60, 70)])
    got = weighted_rows.crop_resize([around, whole], boxes, 16)
    alone = weighted_rows.crop_resize([inside], torch.tensor([(0, 0, 20, 30)]), 16)
    assert torch.equal(got[0], alone[0])


def test_number_of_threads_does_not_change_bits():
    slices, boxes = torch.rand(40, 1, 64, 48, generator=generator()), some_crops([(64, 48)] * 40)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(weighted_rows.crop_resize(slices, boxes, 32))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [5, 40, 300])
def test_blur_changes_the_chosen_samples_as_the_sums_of_shifts_do(size):
    x = torch.rand(7, 2, size, size, generator=generator())
    chosen, sigma = torch.tensor([5, 0, 2, 6]), torch.tensor([0.1, 0.7, 2.0, 1.3])
    got = x.clone()
    weighted_rows.blur_in_place(got, chosen, sigma, 6)
    torch.testing.assert_close(got[chosen], resample.blur(x[chosen], sigma, 6), atol=2e-6, rtol=0)
    others = [1, 3, 4]
    assert torch.equal(got[others], x[others])
