"""The base of every settings model, and the settings that several layers share. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Immutable settings: unknown keys are errors, defaults are validated, numbers must be finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class OwnDefaults(Settings):
    """Settings that override the defaults of groups they hold.

    Who changes one key of a group, as in ``optimisation: {lr: 1.e-4}``, keeps these settings' own defaults for the
    others.
    """

    @model_validator(mode="before")
    @classmethod
    def _keep_own_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        defaults = {key: field.default for key, field in cls.model_fields.items()}
        return {key: _overlay(defaults.get(key), value) for key, value in given.items()}


def _overlay(default: Any, given: Any) -> Any:
    """Return ``given`` with what it leaves out of a settings group taken from ``default``."""
    if not (isinstance(default, Settings) and isinstance(given, Mapping)):
        return given
    changed = {key: _overlay(getattr(default, str(key), None), value) for key, value in given.items()}
    return default.model_dump() | changed


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("a range is two numbers above 0, the smaller one first")
    return bounds


def _share(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[1] > 1:
        raise ValueError("a share of the area is at most 1")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Share = Annotated[Range, AfterValidator(_share)]

CONVOLUTIONAL, TRANSFORMER, HIERARCHICAL = "convolutional", "transformer", "hierarchical"
"""Types of encoder: convolutions alone; a plain transformer of patch tokens; any other network that attends."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""auto: bfloat16 where the device computes in it natively, else float32; the stages table says which it was."""


class Augmentation(Settings):
    """Random transformations of one view of a slice, each drawn per sample.

    Strengths follow torchvision's meaning on intensities scaled to [0, 1]. A probability of 0 switches off.
    """

    crop_scale: Share = (0.2, 1.0)
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
    elastic_p: float = Field(0.0, ge=0, le=1)
    """Probability of an elastic displacement."""
    elastic_px: float = Field(4.0, ge=0)
    """Standard deviation of the displacement of the grid's points, in output pixels."""
    elastic_cells: int = Field(4, ge=1)
    """Cells of the grid whose points move, along each axis; between them the displacement is smooth."""
    bias_p: float = Field(0.0, ge=0, le=1)
    """Probability of a bias field, the smooth shading of magnetic resonance images."""
    bias_strength: float = Field(0.3, ge=0)
    """Coefficients of the log bias field, a polynomial of degree 3, are drawn from [-bias_strength, bias_strength]."""
    cutout_p: float = Field(0.0, ge=0, le=1)
    """Probability that a rectangle is set to 0; masks stay as they are."""
    cutout_scale: Share = (0.02, 0.2)
    """Share of the view that the rectangle covers, drawn uniformly."""
    cutout_ratio: Range = (0.3, 3.3)
    """Aspect ratio (height / width) of the rectangle, drawn log-uniformly."""


class Backbone(Settings):
    """An encoder architecture of timm."""

    encoder: str
    """timm architecture, without a pretrained tag: resnet50, convnext_tiny, ..."""
    channels: int = Field(1, ge=1, le=16)
    """Input channels; a pack must have as many."""
    options: dict[str, bool | int | float | str | list[int]] = Field(default_factory=dict)
    """Keyword arguments for the architecture, for example {drop_path_rate: 0.1}."""


class Optimisation(Settings):
    """Optimiser and learning-rate schedule of a stage."""

    optimiser: Literal["adamw", "adam", "sgd", "lars"] = "adamw"
    """Update rule."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate, used as it is: no scaling with the batch size."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay; not applied to biases and normalisation layers."""
    final_weight_decay: float | None = Field(None, ge=0)
    """Weight decay that half a cosine leads to at the last step; null for a constant one."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd and lars; the first beta of adam and adamw."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Second beta of adam and adamw."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Shape of the learning rate after warm-up: cosine decay to final_lr, or constant."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs of linear warm-up from warmup_lr."""
    warmup_lr: float = Field(0.0, ge=0)
    """Learning rate at the first step of warm-up."""
    final_lr: float = Field(0.0, ge=0)
    """Learning rate that the cosine ends at."""
    trust_coefficient: float = Field(1e-3, gt=0)
    """Factor of lars on each layer's ratio of weights to gradient (eta)."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest gradient norm; null for no clipping."""


class Normalisation(Settings):
    """What an encoder's input looks like: intensities scaled to [0, 1], minus mean, over standard deviation."""

    mean: float | tuple[float, ...] = 0.5
    """Mean subtracted, on the [0, 1] scale: one for all channels, or one for each."""
    std: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 0.25
    """Standard deviation divided by, on the [0, 1] scale: one for all channels, or one for each."""

    def for_channels(self, channels: int) -> Normalisation:
        """Return the same for slices of so many channels: statistics of other channels are averaged to one."""
        return Normalisation(mean=_for_channels(self.mean, channels), std=_for_channels(self.std, channels))


def _for_channels(value: float | tuple[float, ...], channels: int) -> float | tuple[float, ...]:
    if isinstance(value, float) or (len(value) == channels and channels > 1):
        return value
    return sum(value) / len(value)


class Training(Settings):
    """How a task trains: length, batches, optimisation, augmentation, validation."""

    epochs: int = Field(100, ge=1)
    """Epochs; with steps: same an epoch has as many steps whatever the annotation count."""
    batch_size: int = Field(16, ge=1)
    """Slices per optimiser step."""
    image_size: int = Field(224, ge=32, multiple_of=32)
    """Side of the square training crops, in pixels."""
    steps: Literal["same", "natural"] = "same"
    """same: every trial takes the steps of the full annotated set, repeating its slices; natural: one pass an epoch."""
    optimisation: Optimisation = Optimisation()
    """Optimiser and schedule."""
    augmentation: Augmentation = Augmentation(
        crop_scale=(0.5, 1.0), jitter_p=0.5, brightness=0.2, contrast=0.2, blur_p=0.0
    )
    """Random transformations of training slices; masks follow the geometric ones."""
    evaluate_every: int = Field(1, ge=1)
    """Validate every that many epochs, and after the last one; the best validated epoch is tested."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass."""
