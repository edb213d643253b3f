"""Ids of a fixed study's stages, so that no change of the code changes an identity without anybody noticing.

After a change that is meant, raise ``IDENTITY_FORMAT`` or the recipe it belongs to, and write the file anew::

    PYTHONPATH=. python tests/golden/test_golden_plan.py
"""

from __future__ import annotations

import json
from pathlib import Path

from raysweep.planning import build_plan
from raysweep.planning.summary import plan_json
from tests.studies import FAKE_FACTS, fake_study

GOLDEN = Path(__file__).with_name("plan_tiny.json")
GRID = {
    "grid.source": ["random", "cardiac", "leaves-cardiac"],
    "grid.method": ["simclr", "byol"],
    "grid.annotations": [4, "all"],
    "grid.tuning": ["full", "frozen"],
}


def planned() -> str:
    return json.dumps(plan_json(build_plan(fake_study(GRID), FAKE_FACTS), {}), indent=1) + "\n"


def test_a_fixed_study_gives_the_plan_on_file():
    assert json.loads(planned()) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(planned())
