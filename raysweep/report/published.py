"""Numbers that were published of the studies that raysweep repeats, for reports to print beside their own.

Studies whose name begins with a key of ``STUDIES`` get them. A published initialisation, or task, is that of a study
whose name has the same words, whatever stands between them (``ImageNet -> CheXpert``: ``imagenet-chexpert``), or one of
the other names listed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Topic = Literal["convergence", "lengths", "annotations", "best"]


@dataclass(frozen=True)
class PublishedNumber:
    """A number from a publication, printed beside the study's own; ``value`` and ``spread`` are 0 to 1."""

    arm: str
    """Label of the arm, as the report writes it: ``source · method · 6 ep``; or the published name if the study has no
    such arm."""
    metric: str
    value: float
    spread: float | None = None
    annotations: int | None = None
    """Annotation count it was measured at; None for full data."""
    reference: str = ""
    """Where it is printed: paper and table."""
    task: str | None = None
    """Task of the study; None where it has one."""


@dataclass(frozen=True)
class PublishedFinding:
    """A finding that a publication states in words, and the kind of this study's sentences that speak of the same."""

    text: str
    topic: Topic
    reference: str


@dataclass(frozen=True)
class Publication:
    """What one publication reports."""

    numbers: tuple[PublishedNumber, ...] = ()
    findings: tuple[PublishedFinding, ...] = ()


NOTHING_PUBLISHED = Publication()

_TAHER = "Hosseinzadeh Taher et al. 2021, arXiv:2108.05930"
_KALAPOS = "Kalapos & Gyires-Tóth 2022, arXiv:2209.00314"
_METRICS = {"DXC14": "auc", "DXC5": "auc", "TXC": "auc", "ECC": "auc", "PXS": "dice", "LXS": "dice"}

# Means and standard deviations over ten runs, per cent: domain-adapted pretraining, by task.
_DOMAIN_TASKS = ("DXC14", "DXC5", "TXC", "PXS", "LXS")
_DOMAIN: Mapping[str, tuple[tuple[float, float] | None, ...]] = {
    "Scratch": ((80.31, 0.10), (86.60, 0.17), (89.03, 1.82), (67.54, 0.60), (97.55, 0.36)),
    "ImageNet": ((81.70, 0.15), (87.10, 0.36), (95.62, 0.63), (67.93, 1.45), (98.19, 0.13)),
    "ChestX-ray14": (None, (87.40, 0.26), (96.32, 0.65), (68.92, 0.98), (98.18, 0.06)),
    "CheXpert": ((81.99, 0.08), None, (97.07, 0.95), (69.30, 0.50), (98.25, 0.04)),
    "ImageNet -> ChestX-ray14": (None, (87.09, 0.44), (98.47, 0.26), (69.52, 0.38), (98.27, 0.03)),
    "ImageNet -> CheXpert": ((82.25, 0.18), None, (97.33, 0.26), (69.36, 0.49), (98.31, 0.05)),
}
# Read off a chart, within 0.05: self-supervised ImageNet models.
_SSL: Mapping[str, Mapping[str, float]] = {
    "PXS": {"ImageNet": 67.9, "SimCLR-v1": 70.5, "SeLa-v2": 70.5, "BYOL": 70.0, "DeepCluster-v2": 70.6, "SwAV": 70.45,
            "Barlow Twins": 70.4},
    "DXC14": {"ImageNet": 81.70, "SwAV": 81.93},
    "ECC": {"ImageNet": 94.7, "SeLa-v2": 95.7, "DeepCluster-v2": 95.7, "Barlow Twins": 95.7, "BYOL": 95.6, "SwAV": 95.6,
            "SimCLR-v1": 95.45},
}  # fmt: skip


def _domain_numbers() -> tuple[PublishedNumber, ...]:
    where = f"{_TAHER}, mean ± sd of 10 runs"
    return tuple(
        PublishedNumber(init, _METRICS[task], value[0] / 100, value[1] / 100, reference=where, task=task)
        for init, values in _DOMAIN.items()
        for task, value in zip(_DOMAIN_TASKS, values, strict=True)
        if value is not None
    )


def _ssl_numbers() -> tuple[PublishedNumber, ...]:
    return tuple(
        PublishedNumber(init, _METRICS[task], mean / 100, reference=f"{_TAHER}, read off a chart (± 0.0005)", task=task)
        for task, values in _SSL.items()
        for init, mean in values.items()
    )


_KALAPOS_FINDINGS = (
    PublishedFinding(
        "Self-supervised pretraining on natural images, then on the domain, converges 4 to 5 times faster than "
        "supervised ImageNet.", "convergence", _KALAPOS,
    ),
    PublishedFinding("Fewer than 5 epochs of pretraining on the domain are enough.", "lengths", _KALAPOS),
    PublishedFinding("With few annotated slices, supervised ImageNet is best.", "best", _KALAPOS),
    PublishedFinding(
        "Fewer than 100 annotated slices come close to the lowest error; error against slices follows a power law with "
        "a knee at 30 to 75 slices.", "annotations", _KALAPOS,
    ),
)  # fmt: skip

STUDIES: Mapping[str, Publication] = {
    "kalapos2022": Publication(findings=_KALAPOS_FINDINGS),
    "taher2021_ssl": Publication(_ssl_numbers()),
    "taher2021_domain": Publication(_domain_numbers()),
}

# Other names under which a study may have a published initialisation.
_ALSO = {
    "scratch": ("random", "randominit"),
    "imagenet": ("imagenetsupervised", "supervisedimagenet", "supervised", "imagenet1ksupervised"),
    "chestxray14": ("nihchestxray14", "cxr14", "indomainchestxray14", "chestxray14supervised"),
    "chexpert": ("indomainchexpert", "chexpertsupervised"),
}


def published(study: str, arms: Sequence[str], tasks: Sequence[str]) -> Publication:
    """Return what was published of a study, arms and tasks under the study's own names where it has them.

    ``arms`` are labels of arms. Nothing is returned for a study that repeats no publication; numbers of a task that the
    study does not have are left out, those of an arm it does not have keep the published name.
    """
    found = next((entry for prefix, entry in STUDIES.items() if _words(study).startswith(_words(prefix))), None)
    if found is None:
        return NOTHING_PUBLISHED
    own_names = _own_names(list(dict.fromkeys(number.arm for number in found.numbers)), arms)
    numbers = []
    for number in found.numbers:
        task = next((name for name in tasks if _words(number.task or "") == _words(name)), None)
        if task is not None:
            own = {"arm": own_names.get(number.arm, number.arm), "task": task}
            numbers.append(PublishedNumber(**{**number.__dict__, **own}))
    return Publication(tuple(numbers), found.findings)


def _own_names(inits: Sequence[str], arms: Sequence[str]) -> dict[str, str]:
    """Return the study's arm of every published initialisation that it has; plain names go before longer ones."""
    found: dict[str, str] = {}
    for longer in (False, True):
        for init in inits:
            wanted = _words(init)
            names = {f"imagenet{wanted}", f"{wanted}imagenet"} if longer else {wanted, *_ALSO.get(wanted, ())}
            free = [label for label in arms if label not in found.values()]
            label = next((label for label in free if _words(label.split(" · ")[0]) in names), None)
            if label is not None:
                found.setdefault(init, label)
    return found


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("resnet50", ""))
