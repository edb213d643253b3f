"""The base of every settings model, and the settings that several layers share. No torch here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Immutable settings: unknown keys are errors, defaults are validated, numbers must be finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Range = tuple[float, float]


class Augmentation(Settings):
    """Random transformations of one view of a slice, each drawn per sample.

    Strengths follow torchvision's meaning on intensities scaled to [0, 1]. A probability of 0 switches an operation off.
    """

    crop_scale: Range = (0.2, 1.0)
    """Share of the slice's area that the random resized crop covers, drawn uniformly; (1, 1) keeps the whole slice."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Aspect ratio (width / height) of the crop, drawn log-uniformly."""
    flip_p: float = Field(0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    vertical_flip_p: float = Field(0.0, ge=0, le=1)
    """Probability of an up-down flip."""
    rotation_deg: float = Field(0.0, ge=0, le=180)
    """Rotation angle in degrees, drawn uniformly from [-rotation_deg, rotation_deg]."""
    jitter_p: float = Field(0.8, ge=0, le=1)
    """Probability that brightness, contrast and gamma change."""
    brightness: float = Field(0.4, ge=0, le=1)
    """Brightness factor, drawn uniformly from [1 - brightness, 1 + brightness]."""
    contrast: float = Field(0.4, ge=0, le=1)
    """Contrast factor about the slice's mean, drawn uniformly from [1 - contrast, 1 + contrast]."""
    gamma: float = Field(0.0, ge=0, lt=1)
    """Gamma exponent, drawn log-uniformly from [1 / (1 + gamma), 1 + gamma]."""
    blur_p: float = Field(0.5, ge=0, le=1)
    """Probability of a Gaussian blur."""
    blur_sigma_px: Range = (0.1, 2.0)
    """Standard deviation of the blur in output pixels, drawn uniformly."""
    noise_p: float = Field(0.0, ge=0, le=1)
    """Probability of additive Gaussian noise."""
    noise_std: float = Field(0.05, ge=0)
    """Standard deviation of the noise, in units of the [0, 1] intensity range."""
    solarise_p: float = Field(0.0, ge=0, le=1)
    """Probability that intensities above solarise_threshold are inverted."""
    solarise_threshold: float = Field(0.5, ge=0, le=1)
    """Intensity above which solarisation inverts."""
