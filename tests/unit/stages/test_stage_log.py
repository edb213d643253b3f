"""What a stage says is kept in the store: its begin, epochs and end, warnings of libraries, and why it failed."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from raysweep.logs import JsonLines, log_format
from raysweep.stages.log import StageLog, logged, stage_context
from raysweep.stages.progress import Progress, StagePreempted, StageStopped
from tests.fake_stages import Fake, fake_plan

PASSWORD = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def _no_handlers_of_others(monkeypatch):
    """Leave out what libraries of other tests have installed for all loggers, on streams that are closed since."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in ("raysweep", "raysweep.stage"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])


@pytest.fixture
def stage():
    (stage,) = fake_plan([Fake("heart", epochs=3)]).stages.values()
    return stage


def run_and_read(stage, store, run, *, cells=("a/b",), attempt=1, format_="text") -> list[dict]:
    """Run a stage to its end, however it ends, and return the lines that the store then has."""
    try:
        for _ in logged(run, stage, stage_context(stage, cells, attempt), store, format_):
            pass
    except (ValueError, StageStopped, StagePreempted):
        pass
    (path,) = store.list(f"logs/{stage.id}")
    return [json.loads(line) for line in store.read_bytes(path).decode().splitlines()]


def epochs():
    yield Progress(0)
    yield Progress(1, metrics={"train/loss": 0.5})
    logging.getLogger("some.library").warning("slow disk")
    yield Progress(2, snapshots=(2,))


def test_lines_tell_begin_epochs_warnings_and_end_with_ids_of_stage_and_cells(stage, tiny_store):
    lines = run_and_read(stage, tiny_store, epochs)
    assert [line["message"] for line in lines] == ["begins", "epoch 1 of 3", "slow disk", "epoch 2 of 3", "done"]
    assert {(line["stage"], line["attempt"], tuple(line["cells"])) for line in lines} == {(stage.id, 1, ("a/b",))}
    assert lines[1]["metrics"] == {"train/loss": 0.5}
    assert lines[3]["snapshots"] == [2]


def test_failure_is_kept_with_its_traceback_and_without_its_secret(stage, tiny_store):
    def fails():
        yield Progress(1)
        raise ValueError(f"bad token={PASSWORD}")

    last = run_and_read(stage, tiny_store, fails)[-1]
    assert (last["level"], last["message"], last["epoch"]) == ("ERROR", "failed", 1)
    assert "in fails" in last["traceback"]
    assert "ValueError: bad token=***" in last["traceback"]
    assert PASSWORD not in json.dumps(last)


@pytest.mark.parametrize(("ending", "message"), [(StageStopped, "stopped"), (StagePreempted, "preempted: saved")])
def test_stage_that_is_ended_on_purpose_has_not_failed(stage, tiny_store, ending, message):
    def ends():
        yield Progress(1)
        raise ending

    last = run_and_read(stage, tiny_store, ends)[-1]
    assert (last["level"], last["message"]) == ("INFO", message)


def test_stage_that_nobody_runs_to_its_end_is_published_all_the_same(stage, tiny_store):
    running = logged(epochs, stage, stage_context(stage, (), 1), tiny_store)
    next(running)
    next(running)
    running.close()
    (path,) = tiny_store.list(f"logs/{stage.id}")
    assert json.loads(tiny_store.read_bytes(path).splitlines()[-1])["message"] == "stopped"


def test_stage_that_serves_many_cells_names_the_first_and_their_number(stage, tiny_store):
    (line, *_) = run_and_read(stage, tiny_store, epochs, cells=[f"cell-{i}" for i in range(1000)])
    assert line["num_cells"] == 1000
    assert line["cells"] == [f"cell-{i}" for i in range(8)]


def test_what_other_threads_say_is_not_this_stages(stage, tiny_store):
    def run():
        yield Progress(1)
        other = threading.Thread(target=lambda: logging.getLogger("x").warning("elsewhere"))
        other.start()
        other.join()

    assert "elsewhere" not in str(run_and_read(stage, tiny_store, run))


def test_size_is_bounded_and_begin_and_end_are_kept(tiny_store):
    log = StageLog(tiny_store, "logs/s/1.jsonl", max_bytes=8_000)
    log.setFormatter(JsonLines())
    for number in range(1000):
        log.emit(logging.LogRecord("x", logging.INFO, "", 0, f"line {number}", None, None))
    log.publish()
    kept = tiny_store.read_bytes("logs/s/1.jsonl")
    messages = [json.loads(line)["message"] for line in kept.splitlines()]
    assert len(kept) < 8_200
    assert messages[0] == "line 0"
    assert messages[-1] == "line 999"
    left_out = [message for message in messages if "left out" in message]
    assert left_out == [f"{1000 - len(messages) + 1} lines left out"]


def test_one_line_larger_than_the_bound_is_kept_alone(tiny_store):
    log = StageLog(tiny_store, "logs/s/1.jsonl", max_bytes=1_000)
    log.setFormatter(JsonLines())
    for text in ("a", "b" * 5_000, "c" * 5_000):
        log.emit(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))
    log.publish()
    messages = [json.loads(line)["message"] for line in tiny_store.read_bytes("logs/s/1.jsonl").splitlines()]
    assert messages == ["a", "1 lines left out", "c" * 5_000]


def test_json_lines_also_go_to_the_standard_error_stream(stage, tiny_store, capsys):
    lines = run_and_read(stage, tiny_store, epochs, format_="json")
    printed = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "slow disk" not in line]
    assert printed == [line for line in lines if line["message"] != "slow disk"]


def test_text_prints_nothing(stage, tiny_store, capsys):
    run_and_read(stage, tiny_store, epochs)
    assert "epoch" not in capsys.readouterr().err


def test_store_that_cannot_be_written_to_ends_no_stage(stage, tiny_store, monkeypatch, capsys):
    def fails(*_):
        raise OSError(f"403 for https://user:{PASSWORD}@host")

    monkeypatch.setattr(tiny_store, "write_bytes", fails)
    assert [progress.epoch for progress in logged(epochs, stage, stage_context(stage, (), 1), tiny_store)] == [0, 1, 2]
    told = capsys.readouterr().err
    assert "could not be written: 403 for https://user:***@host" in told


def test_handlers_are_taken_off_again(stage, tiny_store):
    before = (list(logging.getLogger().handlers), list(logging.getLogger("raysweep.stage").handlers))
    run_and_read(stage, tiny_store, epochs, format_="json")
    assert (list(logging.getLogger().handlers), list(logging.getLogger("raysweep.stage").handlers)) == before


def test_unknown_format_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setenv("RAYSWEEP_LOG", "jsn")
    with pytest.raises(Exception, match=r"allowed: text, json\. Did you mean 'json'"):
        log_format()
