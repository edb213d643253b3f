"""Results as files: the table and its reading for people, the same numbers as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raysweep._version import __version__
from tests.benchmarks.measurement import Measurement, Row

_LIBRARIES = ("torch", "torchvision", "lightly", "ray", "numpy", "h5py", "pyarrow")


def setup_facts() -> dict[str, str]:
    """Return CPU, cores, versions and date; nothing that names the machine."""
    facts = {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "raysweep": __version__,
    }
    for library in _LIBRARIES:
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            continue
    return {**facts, "Date": datetime.now(UTC).date().isoformat()}


def write_results(
    folder: Path, name: str, description: str, measurement: Measurement, setup: Mapping[str, str]
) -> Path:
    """Write NAME.md and NAME.json, and return the first."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "name": name,
        "description": description,
        "setup": dict(setup),
        "conditions": dict(measurement.conditions),
        "rows": [dict(row) for row in measurement.rows],
        "reading": measurement.reading,
    }
    (folder / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    page = folder / f"{name}.md"
    page.write_text(markdown(name, description, measurement, setup), encoding="utf-8")
    return page


def markdown(name: str, description: str, measurement: Measurement, setup: Mapping[str, str]) -> str:
    """Return the results as a Markdown page."""
    parts = [
        f"# {name}",
        description,
        table(measurement.rows),
        measurement.reading,
        "## Conditions",
        _bullets(measurement.conditions),
        "## Setup",
        _bullets({**setup, "Repeat with": f"`python -m tests.benchmarks {name}`"}),
    ]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table, numbers to three significant digits and to the right."""
    columns = list(rows[0])
    numeric = {column: all(isinstance(row[column], int | float) for row in rows) for column in columns}
    lines = [columns, ["---:" if numeric[column] else "---" for column in columns]]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        digits = f"{value:.3g}"
        return f"{float(digits):,.0f}" if abs(value) >= 1000 else digits
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bullets(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {_cell(value)}" for name, value in facts.items())


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()
