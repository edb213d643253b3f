"""What a benchmark returns, and how it measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

Row = Mapping[str, Any]
Variant = TypeVar("Variant")


@dataclass(frozen=True)
class Measurement:
    """One table, a sentence or two that read it, and what was measured."""

    rows: Sequence[Row]
    """Rows of the table: column -> value; all with the same columns."""
    reading: str
    """What the numbers say."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Sizes, repetitions and clock."""


def alternate(variants: Mapping[Variant, Callable[[], object]], repetitions: int) -> dict[Variant, float]:
    """Run the variants in turn, after one round to warm up, and return the median CPU seconds of each.

    CPU time of this process, so that other load on the machine counts little; turns, so that it counts for all alike.
    """
    seconds: dict[Variant, list[float]] = {name: [] for name in variants}
    for repetition in range(repetitions + 1):
        for name, variant in variants.items():
            begin = time.process_time()
            variant()
            if repetition:
                seconds[name].append(time.process_time() - begin)
    return {name: median(values) for name, values in seconds.items()}


def span(rows: Iterable[Mapping[str, Any]], key: str, encoder: str) -> str:
    """Return the least and the most of a column among the rows of an encoder: ``1.6 to 2.3``."""
    values = [row[key] for row in rows if row["encoder"] == encoder]
    return f"{min(values):.1f} to {max(values):.1f}"
