"""Publishing in a thread: in order, bounded, and no error is lost."""

import threading

import pytest
import torch

from raysweep.stages.publisher import Publisher, copied


def test_jobs_run_in_order_and_are_all_done_at_the_end():
    done = []
    with Publisher() as publisher:
        for number in range(20):
            publisher.submit(lambda number=number: done.append(number))
    assert done == list(range(20))


def test_training_goes_on_while_a_job_runs_and_waits_before_a_third():
    gate, third = threading.Event(), threading.Event()
    with Publisher() as publisher:
        publisher.submit(gate.wait)
        publisher.submit(lambda: None)  # returned: neither was waited for

        def submit() -> None:
            publisher.submit(lambda: None)
            third.set()

        thread = threading.Thread(target=submit)
        thread.start()
        assert not third.wait(0.2)
        gate.set()
        thread.join()
        assert third.is_set()


@pytest.mark.parametrize("call", ["submit", "wait", "end"])
def test_an_error_of_a_job_is_raised_by_the_next_call(call):
    failed, ran = threading.Event(), []

    def fail() -> None:
        failed.set()
        raise OSError("disk full")

    def work() -> None:
        with Publisher() as publisher:
            publisher.submit(fail)
            failed.wait()
            if call == "wait":
                publisher.wait()
            while call == "submit":
                publisher.submit(lambda: ran.append(1))

    with pytest.raises(OSError, match="disk full"):
        work()
    assert len(ran) <= 1  # at most the one that was handed in before the error could be seen


def test_an_error_on_its_way_is_not_replaced_and_jobs_still_end():
    gate, done = threading.Event(), []

    def fail() -> None:
        gate.wait()
        raise OSError("disk full")

    def work() -> None:
        with Publisher() as publisher:
            publisher.submit(fail)
            publisher.submit(lambda: done.append(1))
            gate.set()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert done == [1]


def test_a_copy_does_not_follow_its_original():
    weight = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    state = {"a": [weight, (torch.zeros(()), "text", 3)], "b": {1: weight.requires_grad_()}}
    copy, ready = copied(state)
    with torch.no_grad():
        weight.zero_()
    ready()
    assert torch.equal(copy["a"][0], torch.ones(2, 3, 4, 4))
    assert copy["a"][0].is_contiguous(memory_format=torch.channels_last)
    assert not copy["b"][1].requires_grad
    assert copy["a"][1][1:] == ("text", 3)


def test_a_state_that_cannot_be_written_fails_the_stage(tiny_study, tiny_store, monkeypatch):
    from raysweep.planning import build_plan
    from raysweep.stages.run import run_stage
    from raysweep.sweep import _facts

    study = tiny_study({"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []})
    (stage,) = build_plan(study, _facts(study, tiny_store)).stages.values()
    write = tiny_store.write_bytes

    def refuse(path, data):
        if path.startswith("resume/"):
            raise OSError("quota exceeded")
        write(path, data)

    monkeypatch.setattr(tiny_store, "write_bytes", refuse)
    with pytest.raises(OSError, match="quota exceeded"):
        list(run_stage(stage, tiny_store, threads=1, attempt=1))
    assert tiny_store.ledger_record(stage.id) is None
