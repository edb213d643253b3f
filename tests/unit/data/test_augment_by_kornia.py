"""Augmentation beside a second implementation, kornia's, to stated tolerances; it has no bias field."""

import dataclasses

import kornia
import pytest
import torch

from raysweep.data import augment, resample
from raysweep.settings import Augmentation

SIZE, NUM = 33, 4
NOTHING = Augmentation(crop_scale=(1, 1), flip_p=0, jitter_p=0, blur_p=0)


@pytest.fixture
def slices() -> torch.Tensor:
    """Slices of two channels, smooth enough for interpolation to be compared."""
    coarse = torch.rand(NUM, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)


def augmented(slices: torch.Tensor, **changed: torch.Tensor) -> torch.Tensor:
    shapes = torch.tensor([(SIZE, SIZE)] * NUM)
    parameters = augment.draw(NOTHING, shapes, torch.Generator().manual_seed(0))
    return augment.apply(slices.clone(), dataclasses.replace(parameters, **changed), SIZE)


def test_gamma(slices):
    gamma = torch.tensor([0.5, 0.8, 1.25, 2.0])
    expected = kornia.enhance.adjust_gamma(slices, gamma)
    torch.testing.assert_close(augmented(slices, gamma=gamma), expected, atol=1e-6, rtol=0)


def test_solarisation(slices):
    expected = kornia.enhance.solarize(slices, 0.5)
    got = augmented(slices, solarise=torch.ones(NUM, dtype=torch.bool))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_blur(slices):
    sigma = torch.tensor([0.3, 0.7, 1.1, 2.0])
    expected = kornia.filters.gaussian_blur2d(slices, (13, 13), torch.stack((sigma, sigma), 1), "reflect")
    torch.testing.assert_close(augmented(slices, blur_sigma_px=sigma, blur_radius_px=6), expected, atol=1e-5, rtol=0)


def test_rotation(slices):
    """Away from the border, where one blends what comes from outside."""
    angle = torch.tensor([-40.0, -5.0, 12.0, 90.0])
    expected = kornia.geometry.transform.rotate(slices, angle, align_corners=True)
    inner = slice(SIZE // 4, -SIZE // 4)
    got = augmented(slices, angle_deg=angle)
    torch.testing.assert_close(got[..., inner, inner], expected[..., inner, inner], atol=1e-4, rtol=0)


def test_elastic_displacement(slices):
    """By one field of displacements; how such a field is drawn is each implementation's own."""
    field = resample.smooth_field(torch.randn(NUM, 2, 5, 5, generator=torch.Generator().manual_seed(1)), SIZE) * 2
    y, x = torch.meshgrid(torch.arange(SIZE).float(), torch.arange(SIZE).float(), indexing="ij")
    expected = kornia.geometry.transform.remap(slices, x + field[:, 1], y + field[:, 0], align_corners=True)
    got = resample.displace(slices, field, "bilinear")
    inside = ((torch.stack((y, x)) + field).clamp(0, SIZE - 1) == torch.stack((y, x)) + field).all(1, keepdim=True)
    torch.testing.assert_close(got * inside, expected * inside, atol=1e-4, rtol=0)


def test_erased_rectangles(slices):
    torch.manual_seed(0)
    erase = kornia.augmentation.RandomErasing(p=1.0)
    expected = erase(slices)
    drawn = [erase._params[name] for name in ("ys", "xs", "heights", "widths")]
    assert (expected != slices).any()
    torch.testing.assert_close(augmented(slices, cutout=torch.stack(drawn, 1).float() / SIZE), expected)
