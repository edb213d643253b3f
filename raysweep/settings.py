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


def later(default: Any, **rules: Any) -> Any:
    """Declare a setting that came after its model: at its default it is no part of a dump, and so of no identity.

    Stages that were run before the setting was there keep their ids, for they did what the default says.
    """
    return Field(default, exclude_if=lambda value: value == default, **rules)


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

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
"""auto: bfloat16 on a GPU that has it and on a CPU that trains clearly faster in it, else float32; the stages table
says which it was. tf32, on GPUs: float32 whose products have 10 bits behind the point."""


Drawing = Literal["nested", "anew", "kalapos2022", "taher2021"]
"""nested: a smaller annotation subset lies inside a larger one of the same seed. anew: each count is drawn on its own.
kalapos2022: as that study drew them, slice by slice with ``numpy.random.choice`` after ``numpy.random.seed(seed)``, not
stratified, whatever the patient. numpy takes the first of one permutation, so that subsets of one seed nest after all.
taher2021: as that study drew its label fractions, the first of one order that ``random.Random(99)`` shuffled, the same
for every seed.

Source: public code of Kalapos & Gyires-Toth 2022, and of Hosseinzadeh Taher et al. 2021.
"""

Uncertain = Literal["ones", "zeros", "lsr-ones", "lsr-zeros", "ignore"]
"""What becomes of uncertain labels: 1 (U-Ones), 0 (U-Zeros), a random number near one or near zero each (LSR), or left
out.

Source: Irvin et al., CheXpert, AAAI 2019; Pham et al., Interpreting chest X-rays via CNNs, Neurocomputing 2021.
"""
Unknown = Literal["ignore", "zeros"]
"""What becomes of labels that are not known: left out, or taken for absent."""


def _within_one(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= bounds[0] <= bounds[1] <= 1:
        raise ValueError("a range of labels is two numbers from 0 to 1, the smaller one first")
    return bounds


LabelRange = Annotated[tuple[float, float], AfterValidator(_within_one)]


class Augmentation(Settings):
    """Random transformations of one view of a slice, each drawn per sample.

    Strengths follow torchvision's meaning on intensities scaled to [0, 1]. A probability of 0 switches off.
    """

    crop_scale: Share = (0.2, 1.0)
    """Share of the slice's area that the random resized crop covers, drawn uniformly; (1, 1) keeps the whole slice."""
    crop_p: float = later(1.0, ge=0, le=1)
    """Probability of the crop; without it a view shows the whole slice."""
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


Monitored = Literal["score", "loss"]
"""What validation measures: the score of a task, which should rise, or its loss on whole slices, which should fall."""


class Optimisation(Settings):
    """Optimiser and learning-rate schedule of a stage."""

    optimiser: Literal["adamw", "adam", "sgd", "lars", "rmsprop"] = "adamw"
    """Update rule."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate, used as it is: no scaling with the batch size."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay; not applied to biases and normalisation layers. adamw decouples it from the gradient."""
    final_weight_decay: float | None = Field(None, ge=0)
    """Weight decay that half a cosine leads to at the last step; null for a constant one."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd, lars and rmsprop; the first beta of adam and adamw."""
    nesterov: bool = later(False)
    """Whether sgd looks ahead by its momentum (Nesterov)."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Second beta of adam and adamw; smoothing of rmsprop's squared gradients."""
    schedule: Literal["cosine", "constant", "polynomial", "step", "plateau"] = "cosine"
    """Learning rate after warm-up: cosine or polynomial decay to final_lr, constant, drops by factor every
    drop_every_epochs, or a drop by factor whenever validation has not improved for patience validations (plateau)."""
    schedule_per: Literal["step", "epoch"] = later("step")
    """Whether the rate changes at every optimiser step, the last one reaching final_lr; or at every epoch, final_lr
    lying one epoch after the last, as in torch's schedulers."""
    power: float = later(0.9, gt=0)
    """Power of the polynomial: 1 is linear."""
    drop_every_epochs: int = later(30, ge=1)
    """Epochs after warm-up between two drops, with step."""
    factor: float = later(0.1, gt=0, lt=1)
    """What a drop multiplies the rate by, with step and plateau."""
    patience: int = later(10, ge=0)
    """Validations without improvement that plateau bears; the next one makes the rate drop."""
    threshold: float = later(1e-4, ge=0)
    """Relative change of the monitored quantity that counts as an improvement, with plateau."""
    monitor: Monitored = later("loss")
    """What plateau watches."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs of linear warm-up from warmup_lr."""
    warmup_lr: float = Field(0.0, ge=0)
    """Learning rate at the first step of warm-up."""
    final_lr: float = Field(0.0, ge=0)
    """Learning rate that cosine and polynomial end at, and below which no drop leads."""
    trust_coefficient: float = Field(1e-3, gt=0)
    """Factor of lars on each layer's ratio of weights to gradient (eta)."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest gradient norm; null for no clipping."""

    @model_validator(mode="after")
    def _fits_together(self) -> Optimisation:
        if self.nesterov and (self.optimiser != "sgd" or self.momentum == 0):
            raise ValueError(f"nesterov needs sgd with a momentum above 0, not {self.optimiser} with {self.momentum:g}")
        if self.final_lr > self.lr:
            raise ValueError(f"final_lr {self.final_lr:g} is above lr {self.lr:g}; a schedule ends below its peak")
        return self


class Normalisation(Settings):
    """What an encoder's input looks like: intensities scaled to [0, 1], minus mean, over standard deviation."""

    mean: float | tuple[float, ...] = 0.5
    """Mean subtracted, on the [0, 1] scale: one for all channels, or one for each."""
    std: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 0.25
    """Standard deviation divided by, on the [0, 1] scale: one for all channels, or one for each."""

    def for_channels(self, channels: int) -> Normalisation:
        """Return the same for slices of so many channels: statistics of other channels are averaged to one."""
        return Normalisation(mean=_for_channels(self.mean, channels), std=_for_channels(self.std, channels))


class Reading(Settings):
    """How a pack's stored numbers become an encoder's input; all but the defaults repeat a published study."""

    intensities: Literal["percentiles", "eight-bit", "wrapped"] = "percentiles"
    """percentiles: a volume's 0.5 and 99.5 percentiles become 0 and 1. eight-bit: stored numbers over 255, whatever
    their range. wrapped: the same after a cast to 8 bits that lets 256 become 0."""
    resize_px: int | None = Field(None, ge=32)
    """Side of the square that every slice and its mask are resized to by nearest neighbour, in training as in
    evaluation; null for native resolution."""
    normalisation: Normalisation | None = None
    """Mean and standard deviation in place of those that the weights were trained with; null keeps theirs."""


def _for_channels(value: float | tuple[float, ...], channels: int) -> float | tuple[float, ...]:
    if isinstance(value, float) or (len(value) == channels and channels > 1):
        return value
    return sum(value) / len(value)


class EarlyStopping(Settings):
    """When a fine-tuning ends before its last epoch."""

    patience: int = Field(10, ge=0)
    """Validations without improvement that are borne; the next one ends the training."""
    min_delta: float = Field(0.0, ge=0)
    """How much better than the best so far counts as an improvement, in units of what is monitored."""
    monitor: Monitored = "score"
    """What is watched."""


class Training(Settings):
    """How a task trains: length, batches, optimisation, augmentation, validation."""

    epochs: int = Field(100, ge=1)
    """Epochs; with steps: same an epoch has as many steps whatever the annotation count."""
    batch_size: int = Field(16, ge=1)
    """Slices per optimiser step."""
    image_size: int = Field(224, ge=32, multiple_of=32)
    """Side of the square training crops, in pixels."""
    steps: Literal["same", "natural", "kalapos2022"] = "same"
    """same: every trial takes the steps of the full annotated set, repeating its slices; natural: one pass an epoch;
    kalapos2022: the subset is repeated int(1 / share of the annotations) times and the last, smaller batch dropped."""
    optimisation: Optimisation = Optimisation()
    """Optimiser and schedule."""
    augmentation: Augmentation = Augmentation(
        crop_scale=(0.5, 1.0), jitter_p=0.5, brightness=0.2, contrast=0.2, blur_p=0.0
    )
    """Random transformations of training slices; masks follow the geometric ones."""
    evaluate_every: int = Field(1, ge=1)
    """Validate every that many epochs, and after the last one; the best validated epoch is tested."""
    best_by: Literal["score", "loss", "last"] = later("score")
    """What makes a validated epoch the best, of equal ones the first; last tests the last epoch, whatever it scores."""
    early_stopping: EarlyStopping | None = later(None)
    """When training ends early; null trains to the last epoch. The stage's epochs are those it has trained."""
    ema: float | None = later(None, gt=0, lt=1)
    """Decay per optimiser step of an exponential moving average of the network, which is what is validated and tested;
    null for the network itself."""
    best_every: int = later(1, ge=1)
    """Only epochs that are multiples of it may be the best one, and the last one if there is none."""
    reading: Reading = later(Reading())
    """How slices are read."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass."""
