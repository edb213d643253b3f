"""Numbers, names and units as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.analysis import Setting
from raysweep.report.findings import Findings, Row

_NAMED_ARMS = 3


def score(row: Row) -> str:
    """Return a mean with its interval: ``0.782 (0.751 to 0.805)``."""
    if row["mean"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def duration(seconds: float) -> str:
    """Return seconds as people read them: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for unit, size, below in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < below:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def names(labels: Sequence[str]) -> str:
    """Return labels as a list in words, long ones cut: ``a, b, c and 4 more``."""
    if len(labels) > _NAMED_ARMS + 1:
        return f"{', '.join(labels[:_NAMED_ARMS])} and {len(labels) - _NAMED_ARMS} more"
    return listed(labels)


def listed(parts: Sequence[str]) -> str:
    """Return parts as a list in words: ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def number(count: float, noun: str) -> str:
    """Return a count with its noun: ``1 seed``, ``3 seeds``, ``2.5 epochs``."""
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def prefix(findings: Findings, setting: Setting) -> str:
    """Return the start of a sentence that speaks of one setting; empty if the study has one."""
    name = findings.setting_name(setting)
    return f"{name}: " if name else ""
