"""What a study file may say."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from raysweep import protocols, registry
from raysweep.settings import Backbone, Precision, Reading, Settings, later
from raysweep.study.chains import Step, as_chain, starts_once
from raysweep.study.check import problems_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("names take letters, digits and . _ + -, and start with a letter or digit")
    return name


def _checked_annotations(value: int | str) -> int | str:
    if isinstance(value, int):
        if value < 1:
            raise ValueError("annotation counts are at least 1")
        return value
    if value == "all":
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", value)
    if not match or not 0 < float(match[1]) <= 100:
        raise ValueError("an annotation count is a number (15), a share (5%) or all")
    return value


def _unique(values: list[Any]) -> list[Any]:
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands more than once on this axis")
    return values


Name = Annotated[str, AfterValidator(_checked_name)]
AnnotationCount = Annotated[int | str, AfterValidator(_checked_annotations)]


class PackSource(Settings):
    """Where a pack comes from: a finished file, or a data set that is packed into the store when it is first needed."""

    file: str | None = None
    """A pack written by `raysweep pack`: a path, relative to the study file's folder, or a URI (s3, gs, az)."""
    dataset: str | None = None
    """Packer that makes it (see `raysweep list datasets`), if there is no file."""
    source: str | None = None
    """Folder of the data set's files; synthetic data sets need none."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the packer."""
    staged: bool = False
    """Copy it to each node's own disk before stages read it, for slow shared folders; packs of a URI always are."""

    @model_validator(mode="after")
    def _one_origin(self) -> PackSource:
        if (self.file is None) == (self.dataset is None):
            raise ValueError("give either file (a finished pack) or dataset (a packer), not both and not neither")
        if self.file is not None and (self.source or self.options):
            raise ValueError("source and options belong to a dataset; a pack file needs neither")
        return self


class Pretraining(Settings):
    """What the pretrain stages of a study share."""

    image_size: int = Field(224, ge=32, multiple_of=32)
    """Side of the square views, in pixels."""
    batch_size: int = Field(128, ge=2)
    """Slices per optimiser step."""
    schedule: Literal["shared", "own"] = "shared"
    """shared: one run of the longest length, with snapshots; own: each length has its own run and schedule."""
    seeds: Literal["one", "each"] = "one"
    """one: a single pretraining with `seed`, shared by all seeds of the grid; each: one pretraining per seed."""
    seed: int = Field(0, ge=0)
    """Seed of the pretraining where seeds is one."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass."""
    reading: Reading = later(Reading())
    """How slices are read."""
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings by method, where they differ from the method's defaults."""


class Grid(Settings):
    """The axes. Cells are their product; where an axis does not apply to a source, its cells collapse to one."""

    source: Annotated[list[Name], AfterValidator(_unique)] = Field(min_length=1)
    """Names of sources."""
    method: Annotated[list[str], AfterValidator(_unique)] = Field(default_factory=list)
    """Pretraining methods, for the steps that name none."""
    pretrain_epochs: Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(_unique)] = Field(default_factory=list)
    """Pretraining lengths, for the steps that name none; 0 is the source without that step."""
    annotations: Annotated[list[AnnotationCount], AfterValidator(_unique)] = Field(min_length=1)
    """Annotation counts: numbers, shares such as 5%, or all."""
    seed: Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(_unique)] = Field(min_length=1)
    """Seeds: each draws its annotation subset, initial weights and training order."""
    task: Annotated[list[Name], AfterValidator(_unique)] = Field(default_factory=list)
    """Names of tasks; empty for all of the study's."""
    backbone: Annotated[list[Name], AfterValidator(_unique)] = Field(default_factory=list)
    """Names of backbones; empty for all of the study's."""
    tuning: Annotated[list[Name], AfterValidator(_unique)] = Field(default=["full"], min_length=1)
    """What fine-tuning trains: modes by name (`raysweep list tuning`), or names of `tunings`."""


class StageResources(Settings):
    """What one stage asks of a node."""

    cpus: float = Field(1.0, gt=0)
    """CPU cores; the stage computes with as many threads, at least one."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """GPUs; fractions share one. auto: a whole one for the first stage of a shape, then the share its memory needs.
    Several train a pretrain stage together, each with a share of every batch; they are on one node."""
    ranks: int | None = Field(None, ge=1)
    """Processes that train a pretrain stage together; null for one on each of several GPUs. Without GPUs they share
    the CPU cores."""
    memory_gb: float | None = Field(None, gt=0)
    """Main memory in gigabytes; null asks for none."""
    custom: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources."""
    time_limit_s: float | None = Field(None, gt=0)
    """Seconds that one attempt may take; null for no limit."""

    @model_validator(mode="after")
    def _a_gpu_for_each_rank(self) -> StageResources:
        if self.gpus != "auto" and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is a share of one GPU, or a whole number of them, not {self.gpus:g}")
        if self.ranks is not None and self.asks_gpu and self.ranks != self._num_gpus:
            raise ValueError(
                f"ranks: {self.ranks} asks for a GPU each, but gpus is {self.gpus}; leave ranks out, or gpus at 0"
            )
        return self

    @property
    def _num_gpus(self) -> int:
        return 1 if self.gpus == "auto" else max(1, int(self.gpus))

    @property
    def num_ranks(self) -> int:
        """Processes that train a stage together."""
        return self.ranks or self._num_gpus

    @property
    def asks_gpu(self) -> bool:
        """Whether the stage computes on a GPU."""
        return self.gpus == "auto" or self.gpus > 0

    @property
    def gpu_share(self) -> float:
        """GPUs asked for at first: a whole one where the share is to be measured."""
        return 1.0 if self.gpus == "auto" else self.gpus


class Resources(Settings):
    """What stages ask of a node, by kind, and what happens when one fails or hangs."""

    pretrain: StageResources = StageResources()
    """For each pretrain stage."""
    finetune: StageResources = StageResources()
    """For each finetune stage."""
    attempts: int = Field(2, ge=1)
    """Attempts per stage and launch before it counts as failed; one that a lost node ended does not count."""
    backoff_s: float = Field(5.0, ge=0)
    """Seconds before a failed stage is tried again, twice as long after each further failure."""
    hung_after_s: float | None = Field(1800.0, gt=0)
    """A stage that takes no optimiser step for so many seconds counts as hung and is stopped; null to wait for ever."""


class Pruning(Settings):
    """Early stopping of fine-tunings that fall behind others of their task, backbone, tuning and annotation count."""

    scheduler: Literal["asha", "median"]
    """Ray Tune's scheduler: asynchronous successive halving, or the median stopping rule."""
    grace_epochs: int = Field(1, ge=1)
    """Epochs before a fine-tuning may be stopped."""
    reduction_factor: float = Field(3, gt=1)
    """Of so many fine-tunings one goes on, with asha."""
    min_samples: int = Field(3, ge=1)
    """Fine-tunings that a median is taken of, with median."""


class Stop(Settings):
    """What need not be run; by default everything is."""

    seeds: Literal["all", "decided"] = "all"
    """all: every seed; decided: a comparison with the reference gets no more seeds once its interval is decided."""
    reference: Name | None = None
    """Source that the others are compared with, where seeds is decided."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Probability that any comparison of the study is decided wrongly."""
    min_seeds: int = Field(3, ge=3)
    """Seeds before the first look."""
    margin: float | None = Field(None, gt=0)
    """A difference whose interval lies within -margin and margin is decided too: it does not matter."""
    pruning: Pruning | None = None
    """Early stopping of single fine-tunings; they have no test score then. Null lets each train to its end."""


class Study(Settings):
    """A study: packs, sources, tasks, and the grid over them."""

    study: Name
    """Name of the study; its tables and report carry it."""
    description: str = ""
    """What the study asks, for the report."""
    protocol: Literal["corrected", "paper-exact"] = "corrected"
    """corrected: raysweep's own procedure. paper-exact: that of `paper`, its defects included: each of its settings is
    taken unless the study gives another. `raysweep plan` prints what that is."""
    paper: str | None = None
    """Published study that this one repeats (see `raysweep list protocols`)."""
    packs: dict[Name, PackSource] = Field(min_length=1)
    """The data, by name."""
    backbones: dict[Name, Backbone] = Field(min_length=1)
    """Encoder architectures, by name."""
    sources: dict[Name, Annotated[list[Step], AfterValidator(starts_once)]] = Field(min_length=1)
    """Chains that produce encoders, by name: `random`, `{weights: ...}`, then any number of `{pretrain: ...}`."""
    pretraining: Pretraining = Pretraining()
    """What the pretrain stages share."""
    tasks: dict[Name, dict[str, Any]] = Field(min_length=1)
    """Downstream tasks, by name: `kind` and that kind's settings."""
    statistics: Literal["paired", "taher2021"] = "paired"
    """taher2021: reports also have a table of means, standard deviations (ddof 0) and independent t-tests over runs,
    as that study does."""
    seeding: Literal["fixed", "none"] = later("fixed")
    """fixed: a seed decides every random number of a stage. none: each stage draws a seed of its own and records it, as
    studies do that set none; seeds of the grid then only count runs, and choose annotations."""
    tunings: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Modes of fine-tuning with settings of the study's own, by name: `kind` and that kind's settings."""
    grid: Grid
    """The axes."""
    resources: Resources = Resources()
    """What stages ask of a node."""
    keep_models: bool = False
    """Whether the store keeps the network that each finetune stage tests, for `raysweep export`."""
    stop: Stop = Stop()
    """What need not be run."""

    @model_validator(mode="before")
    @classmethod
    def _published_settings(cls, value: Any) -> Any:
        known = isinstance(value, dict) and value.get("protocol") == "paper-exact"
        if not known or value.get("paper") not in protocols.names():
            return value
        return protocols.as_published(value, protocols.paper_of(value["paper"]))

    @model_validator(mode="before")
    @classmethod
    def _single_steps(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("sources"), dict):
            return {**value, "sources": {name: as_chain(chain) for name, chain in value["sources"].items()}}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if problems := problems_of(self):
            raise ValueError("\n".join(f"{key}: {message}" for key, message in problems))
        return self

    @property
    def task_names(self) -> list[str]:
        """Tasks on the grid's task axis."""
        return self.grid.task or list(self.tasks)

    @property
    def backbone_names(self) -> list[str]:
        """Backbones on the grid's backbone axis."""
        return self.grid.backbone or list(self.backbones)

    def task_settings(self, name: str) -> Any:
        """Return the validated settings of one task."""
        values = {key: value for key, value in self.tasks[name].items() if key != "kind"}
        return registry.load("tasks", self.tasks[name]["kind"]).TASK.Settings.model_validate(values)

    def method_settings(self, name: str) -> Any:
        """Return the validated settings of one pretraining method."""
        return registry.load("methods", name).METHOD.Settings.model_validate(self.pretraining.methods.get(name, {}))

    def tuning_settings(self, name: str) -> tuple[str, Any]:
        """Return kind and validated settings of one mode of fine-tuning."""
        chosen = {"kind": name, **self.tunings.get(name, {})}
        kind = chosen.pop("kind")
        return kind, registry.load("tuning", kind).TUNING.Settings.model_validate(chosen)
