import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode, RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from raysweep.data import augment, resample, weighted_rows
from raysweep.settings import Augmentation

NOTHING = Augmentation(crop_scale=(1, 1), flip_p=0, jitter_p=0, blur_p=0)
EVERYTHING = Augmentation(
    vertical_flip_p=0.5,
    rotation_deg=30,
    jitter_p=1,
    gamma=0.5,
    blur_p=0.5,
    noise_p=0.5,
    solarise_p=0.5,
    elastic_p=0.5,
    bias_p=0.5,
    cutout_p=0.5,
)
BOXES = [(3, 5, 20, 31), (0, 0, 64, 48), (10, 2, 7, 9), (30, 20, 32, 28), (0, 40, 64, 8)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_slices(num: int, channels: int = 1, shape=(64, 48)) -> torch.Tensor:
    return torch.rand(num, channels, *shape, generator=generator(1))


def shapes_of(slices) -> torch.Tensor:
    return torch.tensor([s.shape[-2:] for s in slices])


def parameters_with(num: int, shape=(64, 48), **changes) -> augment.AugmentationParameters:
    return dataclasses.replace(augment.keep_whole(torch.tensor([shape] * num)), **changes)


def parameters_of_boxes(boxes) -> augment.AugmentationParameters:
    y0, x0, h, w = torch.tensor(boxes).unbind(1)
    return parameters_with(len(boxes), y0=y0, x0=x0, h=h, w=w)


@pytest.mark.parametrize("size", [16, 32, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_resize_equal_torchvision_when_scaling_up_and_down(size, channels):
    slices = some_slices(len(BOXES), channels)
    batch = augment.apply(slices, parameters_of_boxes(BOXES), size)
    for got, x, box in zip(batch, slices, BOXES, strict=True):
        expected = reference.resized_crop(x, *box, [size, size], antialias=True)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [16, 32, 96])
@pytest.mark.parametrize("stacked", [True, False])
def test_matmul_route_equals_the_slicewise_route(size, stacked):
    slices = some_slices(len(BOXES), channels=2)
    boxes, flips = torch.tensor(BOXES), torch.tensor([(0, 0), (0, 1), (1, 0), (1, 1), (1, 0)]).bool()
    given = slices if stacked else list(slices)
    got = resample.crop_resize_by_matmul(given, boxes, size, torch.device("cpu"), flips)
    torch.testing.assert_close(got, weighted_rows.crop_resize(slices, boxes, size, flips), atol=1e-5, rtol=0)


def test_whole_slice_of_the_output_size_is_returned_unchanged():
    slices = some_slices(4, shape=(32, 32)) * 5 - 2
    masks = torch.randint(0, 4, (4, 32, 32), dtype=torch.uint8, generator=generator())
    parameters = augment.draw(NOTHING, shapes_of(slices), generator())
    x, y = augment.apply(slices, parameters, 32, masks=masks)
    assert torch.equal(x, slices)
    assert torch.equal(y, masks.long())


def test_input_slices_and_masks_are_not_written_to():
    slices, masks = some_slices(16, shape=(32, 32)), torch.ones(16, 32, 32, dtype=torch.uint8)
    before = slices.clone()
    settings = EVERYTHING.model_copy(update={"crop_scale": (1, 1)})
    augment.apply(slices, augment.draw(settings, shapes_of(slices), generator()), 32, masks=masks)
    assert torch.equal(slices, before)
    assert bool((masks == 1).all())


def test_ragged_slices_become_one_batch_with_masks():
    slices = [torch.rand(1, 20 + 7 * i, 50 - 5 * i) for i in range(6)]
    masks = [(s[0] > 0.5).byte() for s in slices]
    parameters = augment.draw(EVERYTHING, shapes_of(slices), generator())
    x, y = augment.apply(slices, parameters, 24, masks=masks)
    assert (x.shape, x.dtype) == ((6, 1, 24, 24), torch.float32)
    assert (y.shape, y.dtype) == ((6, 24, 24), torch.int64)


def test_crop_boxes_follow_the_distribution_of_torchvision():
    num, settings = 4000, Augmentation(crop_scale=(0.2, 1.0))
    parameters = augment.draw(settings, torch.tensor([(100, 60)] * num), generator())
    torch.manual_seed(0)
    image = torch.empty(1, 100, 60)
    drawn = [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(num)]
    expected = torch.tensor(drawn).float()
    got = parameters.boxes.float()
    # Largest distance between the two empirical distribution functions; at this size 0.043 has p = 0.001.
    for column in (*range(4), "area"):
        a, b = (t[:, 2] * t[:, 3] if column == "area" else t[:, column] for t in (got, expected))
        points = torch.cat((a, b)).unique()
        below = [torch.searchsorted(t.sort().values, points, right=True) / num for t in (a, b)]
        assert float((below[0] - below[1]).abs().max()) < 0.043, column


@pytest.mark.parametrize("shape", [(400, 20), (20, 400)])
def test_crop_that_never_fits_falls_back_to_the_central_crop_of_torchvision(shape):
    settings = Augmentation(crop_scale=(0.9, 0.99))
    box = augment.draw(settings, torch.tensor([shape]), generator()).boxes[0]
    expected = RandomResizedCrop.get_params(torch.empty(1, *shape), [0.9, 0.99], [3 / 4, 4 / 3])
    assert tuple(box.tolist()) == tuple(expected)


def test_equal_generator_states_give_equal_batches_and_the_state_resumes():
    slices = some_slices(8)
    shapes = shapes_of(slices)
    first = generator(3)
    augment.draw(EVERYTHING, shapes, first)
    state = first.get_state()
    expected = augment.apply(slices, augment.draw(EVERYTHING, shapes, first), 32)
    resumed = generator(99)
    resumed.set_state(state)
    torch.rand(100)  # the global generator plays no part
    got = augment.apply(slices, augment.draw(EVERYTHING, shapes, resumed), 32)
    assert torch.equal(got, expected)
    other = augment.apply(slices, augment.draw(EVERYTHING, shapes, resumed), 32)
    assert not torch.equal(other, expected)


def test_settings_do_not_change_how_far_the_generator_moves():
    shapes = torch.tensor([(64, 48)] * 5)
    states = []
    for settings in (NOTHING, EVERYTHING):
        own = generator()
        augment.draw(settings, shapes, own)
        states.append(own.get_state())
    assert torch.equal(*states)


def test_changing_one_sample_leaves_the_others_alone():
    slices = some_slices(8)
    parameters = augment.draw(EVERYTHING, shapes_of(slices), generator(2))
    before = augment.apply(slices, parameters, 32)
    changed = slices.clone()
    changed[3] = 7
    after = augment.apply(changed, parameters, 32)
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after[3], before[3])


def test_a_sample_alone_is_augmented_as_in_its_batch():
    slices = some_slices(8)
    p = augment.draw(EVERYTHING, shapes_of(slices), generator(2))
    batch = augment.apply(slices, p, 32)
    for i in range(8):
        own = {
            field.name: getattr(p, field.name)[i : i + 1]
            for field in dataclasses.fields(p)
            if isinstance(getattr(p, field.name), torch.Tensor)
        }
        alone = augment.apply(slices[i : i + 1], dataclasses.replace(p, **own), 32)
        torch.testing.assert_close(alone[0], batch[i], atol=1e-5, rtol=1e-5)


def test_each_sample_takes_its_own_flip():
    slices = some_slices(4, shape=(16, 16))
    x, y = torch.tensor([True, False, True, False]), torch.tensor([False, True, True, False])
    batch = augment.apply(slices, parameters_with(4, (16, 16), flip_x=x, flip_y=y), 16)
    expected = [slices[0].flip(2), slices[1].flip(1), slices[2].flip(1, 2), slices[3]]
    assert torch.equal(batch, torch.stack(expected))


@pytest.mark.parametrize("angle", [-30.0, 10.0, 90.0, 180.0])
def test_rotation_equals_torchvision(angle):
    slices = some_slices(2, shape=(33, 33))
    masks = torch.randint(0, 4, (2, 33, 33), generator=generator())
    parameters = parameters_with(2, (33, 33), angle_deg=torch.tensor([angle, 0.0]))
    x, y = augment.apply(slices, parameters, 33, masks=masks)
    expected = reference.rotate(slices[0], angle, InterpolationMode.BILINEAR)
    torch.testing.assert_close(x[0], expected, atol=1e-3, rtol=0)
    assert torch.equal(x[1], slices[1])
    share = (y[0] == reference.rotate(masks[:1], angle, InterpolationMode.NEAREST)[0]).float().mean()
    assert share > 0.99  # ties between two pixels may fall either way
    assert torch.equal(y[1], masks[1])


def test_masks_follow_the_slice():
    slices = [torch.rand(1, 40 + i, 70 - i) for i in range(12)]
    masks = [(s[0] > 0.5).byte() for s in slices]
    settings = Augmentation(vertical_flip_p=0.5, rotation_deg=45, jitter_p=0, blur_p=0)
    p = augment.draw(settings, shapes_of(slices), generator(4))
    _, labels = augment.apply(slices, p, 24, masks=masks)
    # The same crop, flips and rotation of the slice itself, all by nearest sampling, then thresholded.
    for i, (y0, x0, h, w) in enumerate(p.boxes.tolist()):
        crop = slices[i][None, :, y0 : y0 + h, x0 : x0 + w]
        view = F.interpolate(crop, size=(24, 24), mode="nearest-exact")
        view = view.flip(3) if p.flip_x[i] else view
        view = view.flip(2) if p.flip_y[i] else view
        view = resample.rotate(view, p.angle_deg[i : i + 1], "nearest")
        assert torch.equal(labels[i], (view[0, 0] > 0.5).long()), i


def test_brightness_and_contrast_equal_torchvision_within_the_unit_range():
    slices = 0.3 + 0.2 * some_slices(3, shape=(32, 32))
    brightness, contrast = torch.tensor([0.6, 1.0, 1.4]), torch.tensor([1.0, 0.7, 1.3])
    batch = augment.apply(slices, parameters_with(3, (32, 32), brightness=brightness, contrast=contrast), 32)
    for i in range(3):
        expected = reference.adjust_brightness(slices[i], float(brightness[i]))
        expected = reference.adjust_contrast(expected, float(contrast[i]))
        torch.testing.assert_close(batch[i], expected, atol=1e-6, rtol=0)


def test_gamma_is_a_power_of_the_intensity_and_takes_negative_ones_as_zero():
    slices = some_slices(2, shape=(8, 8)) * 2 - 0.5
    batch = augment.apply(slices, parameters_with(2, (8, 8), gamma=torch.tensor([1.3, 1.0])), 8)
    torch.testing.assert_close(batch[0], slices[0].clamp(min=0) ** 1.3)
    assert torch.equal(batch[1], slices[1])


@pytest.mark.parametrize("size", [8, 33])
def test_blur_equals_torchvision_for_each_sigma(size):
    slices = some_slices(4, channels=2, shape=(size, size))
    sigma = torch.tensor([0.1, 0.0, 1.0, 2.0])
    radius = min(6, size - 1)
    batch = augment.apply(slices, parameters_with(4, (size, size), blur_sigma_px=sigma, blur_radius_px=6), size)
    for i in (0, 2, 3):
        expected = reference.gaussian_blur(slices[i], [2 * radius + 1] * 2, [float(sigma[i])] * 2)
        torch.testing.assert_close(batch[i], expected, atol=1e-5, rtol=0)
    assert torch.equal(batch[1], slices[1])


def test_solarisation_inverts_from_the_threshold_on():
    slices = torch.tensor([0.0, 0.4, 0.5, 0.9]).view(1, 1, 2, 2).expand(2, 1, 2, 2)
    solarise = torch.tensor([True, False])
    batch = augment.apply(slices, parameters_with(2, (2, 2), solarise=solarise, solarise_threshold=0.5), 2)
    torch.testing.assert_close(batch[0].flatten(), torch.tensor([0.0, 0.4, 0.5, 0.1]))
    assert torch.equal(batch[1], slices[1])


def test_noise_has_the_asked_standard_deviation_and_differs_between_samples():
    slices = torch.zeros(3, 1, 64, 64)
    settings = NOTHING.model_copy(update={"noise_p": 1.0, "noise_std": 0.2})
    batch = augment.apply(slices, augment.draw(settings, shapes_of(slices), generator()), 64)
    assert float(batch.std()) == pytest.approx(0.2, rel=0.05)
    assert float(batch.mean()) == pytest.approx(0, abs=0.01)
    correlation = torch.corrcoef(batch.flatten(1)) - torch.eye(3)
    assert float(correlation.abs().max()) < 0.1


def test_intensities_beyond_the_unit_range_survive():
    slices = some_slices(8) * 10 - 5
    settings = Augmentation(jitter_p=1, blur_p=0)
    batch = augment.apply(slices, augment.draw(settings, shapes_of(slices), generator()), 32)
    assert float(batch.min()) < -1
    assert float(batch.max()) > 2


def test_drawn_ranges_are_those_of_the_settings():
    settings = Augmentation(rotation_deg=20, jitter_p=1, gamma=0.5, blur_p=1, blur_sigma_px=(0.5, 1.5))
    p = augment.draw(settings, torch.tensor([(32, 32)] * 2000), generator())
    for values, low, high in (
        (p.angle_deg, -20, 20),
        (p.brightness, 0.6, 1.4),
        (p.contrast, 0.6, 1.4),
        (p.gamma, 1 / 1.5, 1.5),
        (p.blur_sigma_px, 0.5, 1.5),
    ):
        assert low <= float(values.min()) < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < float(values.max()) <= high
    assert p.blur_radius_px == 5


def test_probabilities_are_those_of_the_settings():
    settings = Augmentation(flip_p=0.3, vertical_flip_p=0.1, jitter_p=0.6, blur_p=0.2, noise_p=0.4, solarise_p=0.7)
    p = augment.draw(settings, torch.tensor([(32, 32)] * 4000), generator())
    for chosen, share in (
        (p.flip_x, 0.3),
        (p.flip_y, 0.1),
        (p.brightness != 1, 0.6),
        (p.blur_sigma_px > 0, 0.2),
        (p.noise_std > 0, 0.4),
        (p.solarise, 0.7),
    ):
        assert float(chosen.float().mean()) == pytest.approx(share, abs=0.03)


def test_draws_of_one_sample_are_independent_of_each_other():
    settings = EVERYTHING.model_copy(update={"flip_p": 0.5, "jitter_p": 1.0, "noise_p": 0.5, "crop_ratio": (1, 1)})
    p = augment.draw(settings, torch.tensor([(400, 400)] * 4000), generator())
    # The middle of the drawn pixel: its first edge lies lower the fewer there are to choose from.
    place = ((p.y0 + 0.5) / (401 - p.h), (p.x0 + 0.5) / (401 - p.w), p.h)
    chosen = (p.flip_x, p.flip_y, p.blur_sigma_px > 0, p.noise_std > 0, p.solarise)
    sizes = (p.angle_deg, p.brightness, p.contrast, p.gamma, p.noise_seed)
    columns = torch.stack([column.double() for column in (*place, *chosen, *sizes)])
    correlation = torch.corrcoef(columns) - torch.eye(len(columns))
    assert float(correlation.abs().max()) < 0.07


def test_crops_reach_every_position_equally_often():
    settings = Augmentation(crop_scale=(4 / 9, 4 / 9), crop_ratio=(1, 1))
    p = augment.draw(settings, torch.tensor([(3, 3)] * 2000), generator())
    assert set(p.h.tolist()) == set(p.w.tolist()) == {2}
    for start in (p.y0, p.x0):
        assert set(start.tolist()) == {0, 1}
        assert float(start.float().mean()) == pytest.approx(0.5, abs=0.05)


def test_autocast_around_it_does_not_lower_the_precision():
    slices = some_slices(6)
    p = augment.draw(Augmentation(blur_p=1), shapes_of(slices), generator())
    expected = augment.apply(slices, p, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment.apply(slices, p, 32), expected)


def test_numbers_of_slices_masks_and_parameters_must_agree():
    slices = some_slices(3)
    p = augment.keep_whole(shapes_of(slices))
    with pytest.raises(ValueError, match="2 slices given for the parameters of 3 samples"):
        augment.apply(slices[:2], p, 16)
    with pytest.raises(ValueError, match="3 slices and 1 masks"):
        augment.apply(slices, p, 16, masks=torch.zeros(1, 64, 48, dtype=torch.uint8))


def test_crop_outside_its_slice_and_mask_of_another_shape_are_refused():
    slices = some_slices(1)
    with pytest.raises(ValueError, match="leaves its 64 x 48 slice"):
        augment.apply(slices, parameters_of_boxes([(60, 0, 5, 5)]), 16)
    with pytest.raises(ValueError, match="mask 0 is"):
        augment.apply(slices, augment.keep_whole(shapes_of(slices)), 16, masks=torch.zeros(1, 8, 8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stacked_on_device", [True, False])
def test_gpu_and_cpu_augment_alike(stacked_on_device):
    slices = some_slices(16, channels=2)
    masks = torch.randint(0, 4, (16, 64, 48), dtype=torch.uint8, generator=generator())
    settings = EVERYTHING.model_copy(update={"solarise_p": 0.0})  # a threshold turns rounding into a jump
    p = augment.draw(settings, shapes_of(slices), generator())
    expected, expected_labels = augment.apply(slices, p, 32, masks=masks)
    given = slices.cuda() if stacked_on_device else list(slices)
    x, y = augment.apply(given, p, 32, masks=masks, device="cuda")
    torch.testing.assert_close(x.cpu(), expected, atol=1e-4, rtol=1e-4)
    assert float((y.cpu() == expected_labels).float().mean()) > 0.99


def test_elastic_displacement_equals_torchvision_and_masks_follow():
    slices = some_slices(3, shape=(32, 32))
    masks = (slices[:, 0] * 4).to(torch.uint8)
    strength = torch.tensor([3.0, 0.0, 1.5])
    p = parameters_with(3, (32, 32), elastic_px=strength, elastic_cells=4, field_seed=torch.tensor([5, 6, 7]))
    x, y = augment.apply(slices, p, 32, masks=masks)
    assert torch.equal(x[1], slices[1])
    for i in (0, 2):
        own = torch.Generator().manual_seed(int(p.field_seed[i]))
        coarse = torch.randn(2, 5, 5, generator=own)
        field = F.interpolate(coarse[None], (32, 32), mode="bicubic", align_corners=True)[0] * strength[i]
        relative = 2 / 32 * field.flip(0).movedim(0, -1)[None]
        expected = reference.elastic(slices[i : i + 1], relative, InterpolationMode.BILINEAR, fill=0)
        labels = reference.elastic(masks[i : i + 1, None].float(), relative, InterpolationMode.NEAREST, fill=0)
        source = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")) + field
        inside = ((source > 0.01) & (source < 30.99)).all(0)  # torchvision blends what comes in from outside
        assert float(inside.float().mean()) > 0.8
        torch.testing.assert_close(x[i, 0][inside], expected[0, 0][inside], atol=1e-4, rtol=0)
        assert float((y[i] == labels[0, 0])[inside].float().mean()) > 0.99
        assert set(y[i].unique().tolist()) <= set(masks[i].unique().tolist()) | {0}
        assert not torch.equal(x[i], slices[i])


def test_elastic_displacement_has_the_asked_size_and_is_smooth():
    fields = torch.stack([resample.smooth_field(torch.randn(2, 5, 5, generator=generator(i)), 64) for i in range(200)])
    assert float(fields[:, :, ::16, ::16].std()) == pytest.approx(1, abs=0.1)  # at the points of the grid, nearly
    assert float(fields.diff(dim=3).abs().max()) < 0.6


def test_bias_field_is_the_exponential_of_a_legendre_polynomial():
    coefficients = torch.randn(resample.NUM_BIAS_TERMS, generator=generator())
    table, terms = np.zeros((4, 4)), iter(coefficients.tolist())
    for i in range(4):
        for j in range(4 - i):
            table[i, j] = next(terms)
    axis = np.linspace(-1, 1, 20)
    expected = np.exp(np.polynomial.legendre.leggrid2d(axis, axis, table))
    got = resample.bias_field(coefficients, 20).double()
    torch.testing.assert_close(got, torch.from_numpy(expected), atol=0, rtol=1e-4)


def test_bias_field_shades_slices_by_at_most_what_its_strength_allows():
    slices = torch.ones(4, 2, 24, 24)
    p = parameters_with(4, (24, 24), bias_strength=torch.tensor([0.0, 0.1, 0.1, 0.3]), field_seed=torch.arange(4))
    x = augment.apply(slices, p, 24)
    assert torch.equal(x[0], slices[0])
    assert torch.equal(x[1, 0], x[1, 1])
    for i, strength in ((1, 0.1), (2, 0.1), (3, 0.3)):
        assert 0 < float(x[i].log().abs().max()) <= 10 * strength
        assert float(x[i].diff(dim=2).abs().max()) < 0.5


def test_cutout_erases_one_rectangle_and_leaves_the_mask():
    slices, masks = torch.ones(2, 1, 40, 40), torch.ones(2, 40, 40, dtype=torch.uint8)
    p = parameters_with(2, (40, 40), cutout=torch.tensor([[0.25, 0.5, 0.2, 0.1], [0, 0, 0, 0]]))
    x, y = augment.apply(slices, p, 40, masks=masks)
    erased = (x[0, 0] == 0).nonzero()
    assert (erased.amin(0).tolist(), erased.amax(0).tolist(), len(erased)) == ([10, 20], [17, 23], 32)
    assert torch.equal(x[1], slices[1])
    assert bool((y == 1).all())


def test_cutouts_are_distributed_as_in_torchvision():
    settings = Augmentation(cutout_p=1, cutout_scale=(0.05, 0.2), cutout_ratio=(0.5, 2))
    p = augment.draw(settings, torch.tensor([(200, 200)] * 4000), generator())
    top, left, h, w = p.cutout.double().unbind(1)
    assert bool((top >= 0).all() & (left >= 0).all() & (top + h <= 1 + 1e-6).all() & (left + w <= 1 + 1e-6).all())
    torch.manual_seed(0)
    drawn = [RandomErasing.get_params(torch.ones(1, 200, 200), (0.05, 0.2), (0.5, 2), [0]) for _ in range(1000)]
    theirs = torch.tensor([d[:4] for d in drawn], dtype=torch.float64) / 200
    for ours, column in ((top, 0), (left, 1), (h, 2), (w, 3)):
        for q in (0.1, 0.5, 0.9):
            assert float(ours.quantile(q)) == pytest.approx(float(theirs[:, column].quantile(q)), abs=0.04)
    rare = augment.draw(settings.model_copy(update={"cutout_p": 0.3}), torch.tensor([(9, 9)] * 4000), generator())
    assert float((rare.cutout[:, 2] > 0).float().mean()) == pytest.approx(0.3, abs=0.03)
