from __future__ import annotations

import pytest

from raysweep.ledger import FailureRecord
from raysweep.report.facts import _stopping_text, recovered_text
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


def test_attempts_that_failed_are_told_of_stages_that_are_done_all_the_same():
    failures = [
        FailureRecord("a", 1, "node", "the node was lost"),
        FailureRecord("a", 1, "error", "ValueError"),
        FailureRecord("b", 1, "node", "the node was lost"),
        FailureRecord("c", 2, "error", "for good"),
    ]
    assert recovered_text(failures, {"a", "b"}) == "3, of 2 stages done since (node 2, error 1)"
    assert recovered_text(failures, {"d"}) == ""
