import os
from pathlib import Path

from rich.console import Console

from raysweep.report import StudyFacts, terminal_summary
from tests.simulate import simulated_study
from tests.unit.report.study_pages import partial_study

GOLDEN = Path(__file__).parents[2] / "golden" / "terminal_summary.txt"


def printed(tables, facts, width=100):
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(terminal_summary(tables, facts))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def test_summary_is_the_golden_text():
    """RAYSWEEP_UPDATE_GOLDEN=1 writes the text anew; read the difference before committing it."""
    text = printed(partial_study(), StudyFacts("simulated", protocol="corrected"))
    if os.environ.get("RAYSWEEP_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_summary_stays_near_thirty_lines_for_a_large_study():
    tables = simulated_study(annotations=(1, 3, 7, 15, 30, 75, 150, 300, 749, 1498), epochs=2)
    assert len(printed(tables, StudyFacts("large"), width=120).splitlines()) <= 36


def test_nothing_finished_is_said():
    text = printed(simulated_study(annotations=(8,), pending=lambda cell: True), StudyFacts("early"))
    assert "Nothing has finished yet: the study has 15 cells." in text


def test_names_that_look_like_markup_are_printed_as_they_are():
    tables = simulated_study(sources={"[bold]x[/]": False}, annotations=(8,), epochs=2)
    assert "[bold]x[/]" in printed(tables, StudyFacts("[red]name"))
    assert "[red]name" in printed(tables, StudyFacts("[red]name"))
