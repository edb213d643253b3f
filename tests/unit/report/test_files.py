"""Tables and figures for papers, and where they are written."""

import csv
import io
import re

import pytest
from PIL import Image

from raysweep.errors import StoreError
from raysweep.report import figures, paper_tables
from raysweep.report.files import live_page, write_files
from raysweep.report.findings import find
from raysweep.report.page import all_panels
from raysweep.study.load import validate_study
from tests.simulate import simulated_study, write_to
from tests.studies import study_document
from tests.unit.report.study_pages import parse, partial_study


@pytest.fixture(scope="module")
def findings():
    return find(partial_study())


@pytest.fixture(scope="module")
def made():
    tables = partial_study()
    return {table.name: table for table in paper_tables.paper_tables(find(tables), tables)}


@pytest.fixture
def study_in_store(tiny_store):
    write_to(tiny_store, partial_study())
    return validate_study(study_document("cardiac.h5", "leaves.h5") | {"study": "simulated"}), tiny_store


def test_scores_are_printed_with_their_spread_the_best_in_bold_and_the_missing_named(made):
    rows = {row[0]: row[1:] for row in made["scores"].rows}
    assert rows["random"][1] == "3 pending"
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3}", rows["random"][0])
    bold = [cells[0] for cells in rows.values() if cells[0].startswith("**")]
    means = [float(cells[0].strip("*").split(" ±")[0]) for cells in rows.values()]
    assert [float(text.strip("*").split(" ±")[0]) for text in bold] == [max(means)]


def test_differences_are_those_to_the_reference(made, findings):
    assert findings.reference == "imagenet"
    pairs = {(row[0], row[1]): row[2] for row in made["differences"].rows}
    for row in findings.comparison:
        if row["arm"] == "imagenet" and row["difference"] is not None:
            assert pairs[row["other"], str(row["annotations"])].startswith(f"{-row['difference']:+.3f} (")


def test_latex_is_booktabs_with_nothing_left_unescaped(made):
    text = paper_tables.to_latex(made["scores"])
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrr}", r"\label{tab:scores}"):
        assert text.count(rule) == 1
    assert r"imagenet $\rightarrow$ acdc $\cdot$ byol" in text
    assert r"\textbf{0." in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert all(line.count(" & ") == 2 and line.endswith(r" \\") for line in body)
    hostile = paper_tables.PaperTable("x", "50 % & #1_a", ("a_b", "c$"), ((r"\input{x}", "**1^2~{}**"),))
    escaped = paper_tables.to_latex(hostile)
    assert r"50 \% \& \#1\_a" in escaped
    assert r"\textbackslash{}input\{x\} & \textbf{1\textasciicircum{}2\textasciitilde{}\{\}}" in escaped


def test_markdown_has_one_line_a_row(made):
    lines = paper_tables.to_markdown(made["scores"]).splitlines()
    assert lines[2] == "| Arm | 8 | 120 |"
    assert lines[3] == "| --- | ---: | ---: |"
    assert len(lines) == 4 + len(made["scores"].rows)
    piped = paper_tables.to_markdown(paper_tables.PaperTable("x", "c", ("a",), (("b|c",),)))
    assert r"| b\|c |" in piped


def test_csv_holds_the_numbers_in_full(findings):
    files = paper_tables.csv_tables(findings)
    rows = list(csv.DictReader(io.StringIO(files["scores"])))
    assert [row["arm"] for row in rows] == [row["arm"] for row in findings.scores]
    assert [row["mean"] for row in rows] == ["" if r["mean"] is None else repr(r["mean"]) for r in findings.scores]
    assert {"trials", "comparison", "equivalence", "speed_up", "power_laws", "ranking", "efficiency"} <= files.keys()


def test_figures_have_their_legend_and_open_in_their_format(findings):
    sections = all_panels(findings, partial_study())
    svg = figures.figure(sections["score"][0], "svg").decode()
    assert svg.startswith("<svg")
    assert "imagenet → acdc · byol" in svg
    assert figures.figure(sections["heat"][0], "pdf").startswith(b"%PDF")
    image = Image.open(io.BytesIO(figures.figure(sections["ranking"][0], "png")))
    assert image.width > 1000
    names = [name for name, _ in figures.figures({name: sections[name] for name in ("heat", "ranking")}, "svg")]
    assert names == ["heat", "ranking-1", "ranking-2"]


def test_formats_go_to_a_folder_or_into_the_store(study_in_store, tmp_path):
    study, store = study_in_store
    made = write_files(study, store, tmp_path / "out", ("html", "md", "tex", "csv"))
    assert made.page == str(tmp_path / "out" / "index.html")
    assert sorted(str(path) for path in (tmp_path / "out").rglob("*.*")) == sorted(made.files)
    assert {path.rsplit(".", 1)[-1] for path in made.files} == {"html", "md", "tex", "csv"}
    inside = write_files(study, store, formats=("md",))
    assert inside.page == f"{store.uri}/reports/simulated/tables/scores.md"
    assert store.exists("reports/simulated/tables/scores.md")
    with pytest.raises(StoreError, match=r"no format 'htm'.*Did you mean 'html'"):
        write_files(study, store, formats=("htm",))


def test_the_live_page_says_what_is_running_and_loads_itself_anew(study_in_store):
    study, store = study_in_store
    assert "No stage has started and not ended." in parse(live_page(study, store, 7)).visible_text
    waiting = next(row for row in partial_study().trials().to_pylist() if row["status"] == "pending")
    store.write_bytes(store.resume_path(waiting["stage"]), b"state")
    store.write_bytes(store.resume_path("of-another-study"), b"state")
    page = live_page(study, store, 7)
    assert '<meta http-equiv="refresh" content="7">' in page
    assert f"{waiting['cell']} finetune 0.0 s ago" in re.sub(r"\b\d\.\d s ago", "0.0 s ago", parse(page).visible_text)
    assert "1 stage in flight" in re.sub(r"(stage in flight) (1)", r"\2 \1", parse(page).visible_text)


def test_every_table_is_written_for_a_study_with_nothing_finished():
    tables = simulated_study(annotations=(8,), pending=lambda cell: True)
    for table in paper_tables.paper_tables(find(tables), tables):
        assert paper_tables.to_latex(table)
        assert paper_tables.to_markdown(table)
