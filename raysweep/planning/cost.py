"""What a plan will take: seconds of every stage from measured rates, or from a stated assumption where none is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from raysweep import registry
from raysweep.planning.model import Kind, Plan, Stage, is_done
from raysweep.store import LedgerRecord

ASSUMED_IMAGES_PER_S = {"gpu": 500.0, "cpu": 2.5}
"""Training images of 224 x 224 pixels per second and GPU, or CPU core: the order of a U-Net with a ResNet-50."""
_REFERENCE_PX = 224**2
ASSUMPTION = (
    "500 images/s per GPU and 2.5 per CPU core at 224 x 224 pixels, in proportion to pixels and the method's cost"
)


@dataclass(frozen=True)
class Measured:
    """What earlier stages of one shape took."""

    epoch_s: float
    """Mean seconds of an epoch, validation and saving included, times the ranks that shared it."""
    gpu_peak_bytes: int | None = None
    """Most GPU memory that one of them held."""
    gpu_total_bytes: int | None = None
    """Memory of the smallest GPU that they ran on."""
    epoch_s_spread: float = 0.0
    """Standard deviation of their epochs' seconds over the mean, between stages."""


@dataclass(frozen=True)
class Rates:
    """Seconds per epoch of stages: measured by shape, else assumed from the images of an epoch."""

    measured: Mapping[str, Measured] = field(default_factory=dict)
    """By the shape of stages."""
    on_gpu: Mapping[Kind, bool] = field(default_factory=dict)
    """Whether stages of a kind ask for a GPU."""
    ranks: Mapping[Kind, int] = field(default_factory=dict)
    """Processes that train a stage of a kind together; 1 where it says nothing."""
    slow_down: Mapping[Kind, float] = field(default_factory=dict)
    """By what an epoch of a kind takes longer than that; 1 where nothing is said."""

    def knows(self, stage: Stage) -> bool:
        """Whether the stage's shape was measured."""
        return stage.shape in self.measured

    def epoch_s(self, stage: Stage) -> float:
        """Return the seconds of one epoch."""
        return self._alone_epoch_s(stage) * self.slow_down.get(stage.kind, 1.0)

    def _alone_epoch_s(self, stage: Stage) -> float:
        found = self.measured.get(stage.shape)
        if found is not None:
            return found.epoch_s / self.ranks.get(stage.kind, 1)
        device = "gpu" if self.on_gpu.get(stage.kind) else "cpu"
        images_per_s = ASSUMED_IMAGES_PER_S[device] * self.ranks.get(stage.kind, 1) / _relative_cost(stage)
        return max(stage.images, 1) * _pixels(stage) / _REFERENCE_PX / images_per_s

    def stage_s(self, stage: Stage) -> float:
        """Return the seconds of a whole stage."""
        return stage.epochs * self.epoch_s(stage)


@dataclass(frozen=True)
class Hours:
    """Time by kind of stage."""

    pretrain: float = 0.0
    finetune: float = 0.0

    @property
    def total(self) -> float:
        """Both kinds."""
        return self.pretrain + self.finetune


@dataclass(frozen=True)
class Estimate:
    """What a plan takes, in hours of the unit that its stages ask for."""

    unit: str
    """GPU-hours, or core-hours where no stage asks for a GPU."""
    whole: Hours
    left: Hours
    """Stages that are not done yet."""
    naive: Hours
    """The same grid where every cell repeats its own pretraining."""
    critical_path_h: float
    """Hours of the longest path through what is left: no cluster is faster."""
    num_measured: int
    """Stages whose rate was measured; the others' is assumed."""

    @property
    def saved(self) -> float:
        """Share of the naive grid's work that sharing saves, 0 to 1."""
        return 1 - self.whole.total / self.naive.total if self.naive.total else 0.0


def estimate(plan: Plan, ledger: Mapping[str, LedgerRecord], rates: Rates) -> Estimate:
    """Estimate what a plan takes."""
    resources = {"pretrain": plan.study.resources.pretrain, "finetune": plan.study.resources.finetune}
    on_gpu = any(wanted.asks_gpu for wanted in resources.values())
    share = {kind: wanted.gpu_share if on_gpu else wanted.cpus for kind, wanted in resources.items()}
    stages = list(plan.stages.values())
    done = {stage.id for stage in stages if is_done(stage, ledger.get(stage.id))}

    def hours(some: Iterable[Stage], epochs: Callable[[Stage], float]) -> Hours:
        by_kind = {"pretrain": 0.0, "finetune": 0.0}
        for stage in some:
            by_kind[stage.kind] += epochs(stage) * rates.epoch_s(stage) * share[stage.kind] / 3600
        return Hours(**by_kind)

    paths = longest_paths(plan, rates.stage_s, skip=lambda stage: stage.id in done)
    return Estimate(
        unit="GPU-hours" if on_gpu else "core-hours",
        whole=hours(stages, lambda stage: stage.epochs),
        left=hours((stage for stage in stages if stage.id not in done), lambda stage: stage.epochs),
        naive=hours(stages, lambda stage: plan.naive_epochs.get(stage.id, stage.epochs)),
        critical_path_h=max(paths.values(), default=0.0) / 3600,
        num_measured=sum(rates.knows(stage) for stage in stages),
    )


def estimate_lines(found: Estimate, num_stages: int) -> list[str]:
    """Return an estimate as lines for the terminal, with what it rests on."""
    saved = f"sharing saves {found.saved:.0%}" if found.saved > 0.005 else "nothing is shared"
    lines = [
        f"time: about {_hours(found.whole.total)} {found.unit} ({_hours(found.whole.pretrain)} pretraining + "
        f"{_hours(found.whole.finetune)} fine-tuning), {_hours(found.left.total)} of them left",
        f"a grid that repeats the pretraining in every cell: {_hours(found.naive.total)} {found.unit}; {saved}",
        f"longest path through what is left: {_hours(found.critical_path_h)} hours, however many machines there are",
    ]
    if found.num_measured == num_stages:
        return [*lines, "rates: measured by earlier stages of this store"]
    measured = (
        f"measured for {found.num_measured} of {num_stages} stages; for the others " if found.num_measured else ""
    )
    return [*lines, f"rates: {measured}assumed, {ASSUMPTION}"]


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def longest_paths(
    plan: Plan, cost: Callable[[Stage], float], skip: Callable[[Stage], bool] = lambda _: False
) -> dict[str, float]:
    """Return, for every stage, the cost of the longest path from its start to the end of the plan.

    A dependent starts at its snapshot, so it adds its own path to the part of the parent that comes before. A stage
    that ``skip`` names costs nothing.
    """
    longest: dict[str, float] = {}
    after: dict[str, float] = {}
    for stage in reversed(list(plan.stages.values())):
        own = 0.0 if skip(stage) else cost(stage)
        longest[stage.id] = max(own, after.get(stage.id, 0.0))
        if stage.parent is not None:
            parent = plan.stages[stage.parent.stage]
            before = 0.0 if skip(parent) else cost(parent) * stage.parent.epoch / parent.epochs
            after[parent.id] = max(after.get(parent.id, 0.0), before + longest[stage.id])
    return longest


def _relative_cost(stage: Stage) -> float:
    """Return the arithmetic of a step relative to supervised training on one view a slice."""
    if stage.kind == "finetune" or "method" not in stage.config:
        return 1.0
    cost: float = registry.load("methods", stage.config["method"]["name"]).METHOD.cost
    return cost


def critical_path(plan: Plan, cost: Callable[[Stage], float]) -> list[tuple[Stage, int]]:
    """Return the stages of the longest path, each with the epoch up to which the path follows it."""
    longest = longest_paths(plan, cost)
    children = plan.children()
    path: list[tuple[Stage, int]] = []
    stage = max(plan.stages.values(), key=lambda stage: longest[stage.id], default=None)
    while stage is not None:
        own = cost(stage)
        ends: list[tuple[float, int, Stage | None]] = [(own, stage.epochs, None)]
        for child in children[stage.id]:
            assert child.parent is not None  # it is a child
            ends.append((own * child.parent.epoch / stage.epochs + longest[child.id], child.parent.epoch, child))
        _, epoch, following = max(ends, key=lambda end: end[0])
        path.append((stage, epoch))
        stage = following
    return path


def _pixels(stage: Stage) -> int:
    config = stage.config
    if stage.kind == "pretrain":
        side = config.get("image_size", 224)
    else:
        side = config.get("task", {}).get("settings", {}).get("training", {}).get("image_size", 224)
    return int(side) ** 2
