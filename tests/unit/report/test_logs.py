"""Finding and reading what stages said."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from raysweep.cli import app
from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch
from raysweep.errors import StoreError
from raysweep.ledger import FailureRecord
from raysweep.report.logs import as_text, attempts, find_stage, read_log
from raysweep.results.write import write_part
from raysweep.store import LedgerRecord
from tests.fake_stages import Fake, fake_plan, run_fake_stage


@pytest.fixture
def ran(tiny_store, monkeypatch):
    """A store in which one stage failed once and then ended well, and another failed for good."""
    monkeypatch.setattr("raysweep.stages.run.run_stage", run_fake_stage)
    fakes = [Fake("good", epochs=2, fails_in_attempts=(1,)), Fake("bad", fails_in_attempts=(1, 2))]
    planned = fake_plan(fakes, resources={"attempts": 2, "backoff_s": 0})
    InlineExecutor().run(Launch(planned, tiny_store))
    return tiny_store, {stage.name: stage.id for stage in planned.stages.values()}


def test_every_attempt_of_a_stage_has_its_lines(ran):
    store, ids = ran
    assert [attempt.number for attempt in attempts(store, ids["good"])] == [1, 2]
    first, last = read_log(store, ids["good"], 1), read_log(store, ids["good"])
    assert first[-1]["level"] == "ERROR"
    assert "good fails in attempt 1" in first[-1]["traceback"]
    assert [line["message"] for line in last] == ["begins", "epoch 1 of 2", "epoch 2 of 2", "done"]


def test_failed_stage_says_why_once(ran):
    store, ids = ran
    errors = [line for line in read_log(store, ids["bad"]) if line["level"] == "ERROR"]
    assert len(errors) == 1
    assert "bad fails in attempt 2" in as_text(errors[0])


def test_stage_is_found_by_id_prefix_and_name(ran):
    store, ids = ran
    assert {find_stage(store, wanted) for wanted in (ids["bad"], ids["bad"][:6], "bad")} == {ids["bad"]}


def test_stage_is_found_by_the_name_of_its_cell(ran):
    store, ids = ran
    cell = {"study": "s", "cell": "heart/small/random/n4/s0", "stage": ids["good"], "lineage": []}
    write_part(store, "cells", "s", [cell])
    assert find_stage(store, "heart/small/random/n4/s0") == ids["good"]


def test_unknown_stage_names_the_nearest(ran):
    store, _ = ran
    with pytest.raises(StoreError, match=r"no log of a stage 'godo'\. Did you mean 'good'"):
        find_stage(store, "godo")


def test_ambiguous_beginning_is_refused_with_the_candidates(tiny_store):
    for name in ("abcd1111", "abcd2222"):
        tiny_store.record(LedgerRecord(name, "done"))
    with pytest.raises(StoreError, match=r"means 2 stages.*abcd1111, abcd2222; give more"):
        find_stage(tiny_store, "abcd")


def test_attempt_that_is_not_there_is_refused_with_what_is(ran):
    store, ids = ran
    with pytest.raises(StoreError, match="no attempt 3; allowed: 1 to 2"):
        read_log(store, ids["good"], 3)


def test_what_the_driver_alone_saw_stands_at_its_time(ran):
    store, ids = ran
    store.record_failure(
        FailureRecord(ids["good"], 2, "node", "the node was lost", host="n7", at="2999-01-01T00:00:00")
    )
    last = read_log(store, ids["good"])[-1]
    assert (last["message"], last["host"]) == ("node: the node was lost", "n7")


def test_command_prints_text_and_json(ran):
    store, ids = ran
    text = CliRunner().invoke(app, ["logs", "good", "--store", store.uri])
    assert text.exit_code == 0
    assert "epoch 2 of 2" in text.output
    lines = CliRunner().invoke(app, ["logs", ids["good"], "--json", "--attempt", "1", "--store", store.uri]).output
    assert json.loads(lines.splitlines()[0])["message"] == "begins"


def test_following_a_stage_that_has_ended_ends(ran):
    store, _ = ran
    result = CliRunner().invoke(app, ["logs", "good", "--follow", "--store", store.uri])
    assert result.exit_code == 0
    assert result.output.count("begins") == 1


def test_following_shows_new_lines_until_the_stage_ends(ran, monkeypatch):
    store, ids = ran
    store.forget(ids["good"])
    (*_, last) = attempts(store, ids["good"])
    whole = store.read_bytes(last.path)
    store.write_bytes(last.path, b"".join(whole.splitlines(keepends=True)[:2]))

    def later(_: float) -> None:
        store.write_bytes(last.path, whole)
        store.record(LedgerRecord(ids["good"], "done"))

    monkeypatch.setattr("time.sleep", later)
    result = CliRunner().invoke(app, ["logs", "good", "--follow", "--store", store.uri])
    assert [line.split(maxsplit=1)[1][:8] for line in result.output.splitlines()] == [
        "begins e",
        "epoch 1 ",
        "epoch 2 ",
        "done sec",
    ]
