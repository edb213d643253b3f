"""What the README says about speed is what the committed results say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "tests" / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- speed -->\n).*?(<!-- /speed -->)", re.DOTALL)
SHOWN = (
    "pack_reading",
    "augmentation",
    "pretraining_speed",
    "finetuning_speed",
    "step_share",
    "grid_throughput",
    "first_step",
    "evaluation",
    "frozen_features",
    "fused_trials",
    "compiled_steps",
)


def rendered() -> str:
    """Return a bullet for each result that is there: its name, linked, and how it reads."""
    found = [name for name in SHOWN if (RESULTS / f"{name}.json").is_file()]
    readings = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["reading"] for name in found}
    return "".join(f"- [{name}](tests/benchmarks/results/{name}.md): {reading}\n" for name, reading in readings.items())


def test_figures_on_speed_are_those_of_the_results():
    text = README.read_text(encoding="utf-8")
    expected = BLOCK.sub(lambda match: match[1] + rendered() + match[2], text)
    if os.environ.get("RAYSWEEP_UPDATE_GOLDEN"):
        README.write_text(expected, encoding="utf-8")
        return
    assert BLOCK.search(text)
    assert text == expected, "run with RAYSWEEP_UPDATE_GOLDEN=1 to renew"
