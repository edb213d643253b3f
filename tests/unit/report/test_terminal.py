import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from raysweep.report import StudyFacts, terminal_summary
from raysweep.report.findings import find
from raysweep.report.sentences import answers
from raysweep.report.terminal import MAX_LINES
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


@pytest.mark.parametrize("width", [80, 100, 160])
def test_summary_fits_thirty_lines_and_counts_what_it_leaves_out(width):
    tables = simulated_study(
        sources={"random": False, "imagenet": False, **{f"source{n}": True for n in range(4)}},
        annotations=(1, 3, 7, 15, 30, 75, 150, 300), epochs=2, num_subjects=6, slices_per_subject=1, seeds=(0, 1),
        failed=lambda cell: cell["source"] == "imagenet",
    )  # fmt: skip
    lines = printed(tables, StudyFacts("large"), width=width).splitlines()
    assert 15 < len(lines) <= MAX_LINES
    text = "\n".join(lines)
    said = answers(find(tables))
    left_out = sum(map(int, re.findall(r"^   and (\d+) more in the report", text, re.MULTILINE)))
    assert text.count(" • ") + left_out == len(said.shown) + len(said.open)
    assert "scores highest" in text


def test_nothing_finished_is_said():
    text = printed(simulated_study(annotations=(8,), pending=lambda cell: True), StudyFacts("early"))
    assert "Nothing has finished yet: the study has 15 cells." in text


def test_names_that_look_like_markup_are_printed_as_they_are():
    tables = simulated_study(sources={"[bold]x[/]": False}, annotations=(8,), epochs=2)
    assert "[bold]x[/]" in printed(tables, StudyFacts("[red]name"))
    assert "[red]name" in printed(tables, StudyFacts("[red]name"))
