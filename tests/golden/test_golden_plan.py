"""Ids of the quickstart's stages, so that no change of the code changes an identity without anybody noticing.

After a change that is meant, raise ``IDENTITY_FORMAT`` or the recipe it belongs to, and write the file anew::

    PYTHONPATH=. python tests/golden/test_golden_plan.py
"""

from __future__ import annotations

import json
from pathlib import Path

from raysweep.planning import PackFacts, build_plan
from raysweep.planning.summary import plan_json
from raysweep.study import load_study

GOLDEN = Path(__file__).with_name("plan_quickstart.json")
QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"
FACTS = {
    name: PackFacts(f"/{name}.h5", f"sha256:{name}", 1, num_classes, 500, {"slice": 40, "volume": 20, "subject": 10})
    for name, num_classes in (("cardiac", 4), ("leaves", 0))
}


def quickstart_plan() -> str:
    return json.dumps(plan_json(build_plan(load_study(QUICKSTART), FACTS), {}), indent=1) + "\n"


def test_the_quickstart_plan_is_the_one_on_file():
    assert json.loads(quickstart_plan()) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(quickstart_plan())
