"""The breakdown of a profiled stage for a terminal."""

from __future__ import annotations

import json
from typing import Any

from raysweep.errors import StoreError
from raysweep.store import Store

_STEP = ("data", "augmentation", "forward", "backward", "optimiser")
_BAR = 30


def render_profile(store: Store, stage: str) -> str:
    """Return what the time of a profiled stage went into, on one screen.

    Raises:
        StoreError: if the stage was not profiled.
    """
    path = store.profile_path(stage, "breakdown.json")
    data = store.read_bytes(path)
    if data is None:
        raise StoreError(f"store {store.uri} has no profile of stage {stage}: it ended before its profile was written")
    found = json.loads(data)
    trace = f"{store.uri.rstrip('/')}/{store.profile_path(stage, 'trace.json')}"
    return "\n".join([*_lines(found), *_trace_lines(found, trace)])


def _lines(found: dict[str, Any]) -> list[str]:
    seconds, steps, whole = found["phases_s"], found["steps"], found["steps_s"]
    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    lines = [f"profile of {found['name'] or found['stage']} ({found['device']}, {found['precision']}, {threads})"]
    if steps:
        rest = max(0.0, whole - sum(seconds[name] for name in _STEP))
        lines.append(f"\n{steps} optimiser steps, {1000 * whole / steps:.1f} ms each:")
        lines += [_row(name, seconds[name], whole, steps) for name in _STEP] + [_row("other", rest, whole, steps)]
        model = seconds["forward"] + seconds["backward"]
        aside = whole - model - seconds["augmentation"]
        shares = [100 * (whole - model) / whole, 100 * aside / whole]
        lines.append(f"  not forward or backward: {shares[0]:.1f} %, without augmentation {shares[1]:.1f} %")
    lines.append(f"\nbeside the steps, of {found['wall_s']:.1f} s in all:")
    return [*lines, *(f"  {name:14s}{seconds[name]:9.2f} s" for name in ("evaluation", "saving"))]


def _row(name: str, seconds: float, whole: float, steps: int) -> str:
    share = seconds / whole if whole else 0.0
    return f"  {name:14s}{1000 * seconds / steps:9.2f} ms{100 * share:7.1f} %  {'#' * round(_BAR * share)}"


def _trace_lines(found: dict[str, Any], trace: str) -> list[str]:
    if not found["traced_steps"]:
        return ["\nno trace: the stage took too few steps"]
    first, last = found["traced_steps"]
    return [f"\ntrace of steps {first} to {last}: {trace}", "  opens in https://ui.perfetto.dev"]
