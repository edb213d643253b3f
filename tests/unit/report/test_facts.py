from __future__ import annotations

import pytest

from raysweep.report.facts import _stopping_text
from tests.studies import fake_study

DECIDED = {"seeds": "decided", "reference": "random", "alpha": 0.1}


def test_a_study_that_runs_everything_states_no_rule():
    assert _stopping_text(fake_study()) == ""


@pytest.mark.parametrize(
    ("stop", "stated"),
    [
        (DECIDED, ["comparison with random", "from seed 3 on", "1 - 0.1 / (looks x comparisons)"]),
        ({**DECIDED, "margin": 0.01}, ["lies within 0.01 of zero"]),
        (
            {"pruning": {"scheduler": "asha", "grace_epochs": 4}},
            ["successive halving, from epoch 4 on", "no test score"],
        ),
        ({"pruning": {"scheduler": "median"}}, ["median stopping rule"]),
    ],
)
def test_the_report_states_the_rules_by_which_a_study_stopped(stop, stated):
    text = _stopping_text(fake_study({"grid.seed": [0, 1, 2, 3], "stop": stop}))
    for part in stated:
        assert part in text
