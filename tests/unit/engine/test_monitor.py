from __future__ import annotations

import io

import pytest
from rich.console import Console

from raysweep.engine.monitor import Monitor, duration
from raysweep.engine.queue import StageQueue
from tests.fake_stages import Fake, fake_plan


def watching(terminal: bool, *fakes: Fake):
    queue = StageQueue(fake_plan(fakes), {})
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, _environ={})
    return queue, Monitor(queue, console=console), out


def test_the_line_counts_every_state_and_shows_what_is_in_use():
    queue, monitor, _ = watching(False, Fake("a", epochs=3), Fake("b", parent=("a", 3)), Fake("c"))
    monitor.use = {"CPU": (1.0, 4.0), "GPU": (0.5, 1.0)}.__getitem__
    monitor.started(queue.take())
    assert monitor.line().startswith("0/3 stages done, 1 waiting, 1 ready, 1 running, CPU 1/4, GPU 0.5/1")


def test_a_machine_without_gpus_does_not_speak_of_them():
    _, monitor, _ = watching(False, Fake("a"))
    monitor.use = {"CPU": (1.0, 4.0), "GPU": (0.0, 0.0)}.__getitem__
    assert "GPU" not in monitor.line()


def test_without_a_terminal_the_last_line_is_plain():
    queue, monitor, out = watching(False, Fake("[red]odd[/] name"))
    with monitor:
        stage = queue.take()
        monitor.started(stage)
        monitor.failed(stage, "it [bold]broke[/]", again=False)
        queue.finished(stage.id)
        monitor.ended(stage)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("failed [red]odd[/] name (")
    assert lines[0].endswith("it [bold]broke[/]"), "what a stage says is never markup"
    assert lines[-1].startswith("1/1 stages done")
    assert "\x1b" not in out.getvalue()


def test_in_a_terminal_running_stages_are_shown_with_their_epochs():
    queue, monitor, out = watching(True, *(Fake(f"stage {number}", epochs=9) for number in range(12)))
    with monitor:
        while (stage := queue.take()) is not None:
            monitor.started(stage)
            monitor.progress(stage, 4)
        monitor._last_drawn = 0.0
        monitor.refresh()
    shown = out.getvalue()
    assert "4/9" in shown
    assert "stage 0" in shown
    assert "and 4 more" in shown
    assert "12 running" in shown


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
