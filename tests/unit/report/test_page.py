import base64
import dataclasses
import hashlib
import io
import json
import re

import pytest
from PIL import Image

from raysweep.analysis import data_efficiency
from raysweep.report import Publication, PublishedFinding, PublishedNumber, StudyFacts
from raysweep.results.read import StudyTables
from raysweep.results.write import to_table
from tests.simulate import several_tasks, simulated_examples, simulated_study
from tests.unit.report.study_pages import page_of, parse, partial_study

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture(scope="module")
def tables():
    return partial_study()


@pytest.fixture(scope="module")
def page(tables):
    return page_of(tables)


@pytest.fixture(scope="module")
def parsed(page):
    return parse(page)


def test_every_element_is_closed(parsed):
    assert parsed.open == []
    assert parsed.mismatched == []


def test_nothing_is_loaded_from_outside_the_page(parsed):
    loads = [
        value
        for _, attributes in parsed.elements
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
        if (value := attributes.get(name)) is not None
    ]
    assert loads
    assert all(value.startswith(("#", "data:")) for value in loads)


def test_styles_name_no_resource(page):
    assert not re.search(r"@import|url\(", page.split("<style>")[1].split("</style>")[0])


def test_the_policy_admits_exactly_the_scripts_of_the_page(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1).replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    assert len(scripts) == 2
    assert policy.startswith("default-src 'none'")
    assert set(policy.split("script-src ")[1].split()) == allowed


def test_vega_is_embedded_once(page):
    assert page.count("window.vegaEmbed") == 1
    assert len(page) < 3_000_000


def test_missing_cells_are_shown(parsed):
    assert "3 of 24 cells have not run (random at 120)." in parsed.visible_text
    assert "2 of 24 cells failed" in parsed.visible_text
    assert "3 pending" in parsed.visible_text
    assert "RuntimeError: CUDA out of memory" in parsed.visible_text
    assert "(no result: random)" in parsed.visible_text


def test_every_plot_has_a_name_and_numbers(page, parsed):
    specs = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    plots = [attributes for _, attributes in parsed.elements if "data-plot" in attributes]
    assert {attributes["data-plot"] for attributes in plots} == set(specs)
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)
    figures = page.split("<figure>")[1:]
    assert all('<details class="numbers">' in figure.split("</figure>")[1][:200] for figure in figures)


def test_plots_of_finished_arms_hold_their_means(page):
    specs = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    text = json.dumps(specs["score-0"], ensure_ascii=False)
    assert '"arm": "imagenet → acdc · byol · 25 ep"' in text
    assert "1 ep" not in text.replace("11 ep", "")


def test_pictures_are_images_with_words(parsed):
    images = [attributes for tag, attributes in parsed.elements if tag == "img"]
    # 2 annotation counts x 3 slices x (image, truth, and 3 arms or the 2 that have finished)
    assert len(images) == 3 * 5 + 3 * 4
    assert all(attributes["alt"] for attributes in images)
    picture = Image.open(io.BytesIO(base64.b64decode(images[1]["src"].split(",")[1])))
    assert picture.size == (192, 192)


def test_example_slices_are_the_best_the_median_and_the_worst_of_those_kept(tables):
    from raysweep.report.findings import find
    from raysweep.report.slices import galleries

    scores = {0: 0.9, 1: 0.2, 2: None, 3: 0.7, 4: 0.5}

    def examples(stage):
        (kept,) = {len(simulated_examples(tables, stage, num=5))}
        found = simulated_examples(tables, stage, num=kept)
        return [dataclasses.replace(e, score=scores[i]) for i, e in enumerate(found)]

    gallery = galleries(find(tables), examples)[0]
    assert gallery.headings[:2] == ("Image", "Truth")
    means = {row["arm"]: row["mean"] for row in find(tables).scores if row["annotations"] == 8}
    assert list(gallery.headings[2:]) == sorted(gallery.headings[2:], key=lambda arm: -means[arm])
    assert [row[0].heading.split(":")[0] for row in gallery.rows] == ["Best", "Median", "Worst"]
    assert [row[2].score for row in gallery.rows] == [0.9, 0.5, None]


def test_the_map_says_why_a_cell_has_no_score(page):
    specs = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    values = re.findall(r'{"arm": "([^"]+)", "count": "(\d+)"[^}]*"label": "([^"]+)"}', json.dumps(specs["heat-0"]))
    labels = {(arm, count): label for arm, count, label in values}
    assert labels["random", "120"] == "wait"
    assert labels["imagenet", "8"].endswith("*")
    assert re.fullmatch(r"\.\d{3}", labels["random", "8"])


def test_cells_behind_a_failed_pretraining_are_shown_as_skipped():
    study = simulated_study(
        sources={"random": False, "acdc": True}, annotations=(8,), pretrain_epochs=(5,), epochs=2,
        failed_pretraining=lambda cell: cell["seed"] == 1,
    )  # fmt: skip
    parsed = parse(page_of(study))
    assert "1 of 6 cells are skipped because a pretraining before them failed (acdc · byol · 5 ep at 8)" in (
        parsed.visible_text
    )
    titles = [
        attributes["title"]
        for _, attributes in parsed.elements
        if attributes.get("class") == "skipped" and "title" in attributes
    ]
    assert len(titles) == 1
    assert "failed: StageError: loss is not finite" in titles[0]
    assert "Needed by 1 cell" in parsed.visible_text


def test_cells_that_were_stopped_or_not_needed_are_shown_and_in_no_average():
    study = simulated_study(sources={"random": False, "b": False}, annotations=(8,), epochs=2, seeds=(0, 1, 2),
                            pending=lambda cell: cell["seed"] == 2)  # fmt: skip
    cells = [c | ({"not_needed": "decided after 2 seeds"} if c["seed"] == 2 else {}) for c in study.cells.to_pylist()]
    stages = [s | ({"status": "stopped"} if s["seed"] == 1 else {}) for s in study.stages.to_pylist()]
    ended = StudyTables("s", to_table("cells", cells), to_table("stages", stages), study.epochs, study.cases)
    text = parse(page_of(ended)).visible_text
    assert "2 of 6 cells were stopped by the study's scheduler (random at 8 and b at 8)." in text
    assert "2 of 6 cells were not needed (random at 8 and b at 8)." in text
    assert "1 stopped, 1 not needed" in text
    assert "have not run" not in text
    rows = {row["arm"]: row for row in data_efficiency(ended).to_pylist()}
    assert (rows["random"]["num_seeds"], rows["random"]["num_stopped"], rows["random"]["num_not_needed"]) == (1, 1, 1)


def test_overlays_show_the_classes_in_their_colours():
    from raysweep.report.slices import CLASS_COLOURS, picture_uri

    tables = simulated_study(sources={"random": False}, annotations=(8,), seeds=(0,))
    example = simulated_examples(tables, tables.cells["stage"][0].as_py())[0]
    data = base64.b64decode(picture_uri(example.image, example.truth).split(",")[1])
    colours = {c for _, c in Image.open(io.BytesIO(data)).convert("RGB").getcolors(100_000)}
    for colour in CLASS_COLOURS[:3]:
        wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert min(max(abs(a - b) for a, b in zip(wanted, c, strict=True)) for c in colours) <= 12


def test_text_of_a_study_cannot_become_markup():
    tables = simulated_study(sources={HOSTILE: False, "b": True}, methods=(HOSTILE,), annotations=(8,), epochs=2)
    stages = tables.stages.to_pylist()
    stages[-1] |= {"status": "failed", "error": HOSTILE}
    broken = StudyTables(HOSTILE, tables.cells, to_table("stages", stages), tables.epochs, tables.cases)
    facts = StudyFacts(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, ((HOSTILE, HOSTILE),),
        Publication(
            (PublishedNumber(HOSTILE, "dice", 0.5, reference=HOSTILE),), (PublishedFinding(HOSTILE, "best", HOSTILE),)
        ),
    )  # fmt: skip
    page = page_of(broken, facts)
    parsed = parse(page)
    assert "<script>alert" not in page
    assert parsed.mismatched == []
    assert not any("onerror" in attributes for _, attributes in parsed.elements)
    assert sum(tag == "script" for tag, _ in parsed.elements) == 3
    assert HOSTILE in parsed.visible_text


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (simulated_study(annotations=(8,), pending=lambda c: True), "Nothing has finished yet"),
        (simulated_study(annotations=(8,), failed=lambda c: True), "15 of 15 cells failed"),
        (simulated_study(annotations=(8,), seeds=(0,)), "rest on one seed"),
        (simulated_study(sources={"random": False}, annotations=(8,)), "no other finished arm"),
        (simulated_study(annotations=(8,), num_subjects=2), "it needs more test subjects"),
        (simulated_study(annotations=(8,), num_subjects=1, seeds=(0,)), "1 test subject"),
    ],
    ids=["nothing", "all failed", "one seed", "one arm", "two subjects", "one cell per arm"],
)
def test_small_and_unfinished_studies_have_a_page_that_says_so(study, said):
    parsed = parse(page_of(study))
    assert said in parsed.visible_text
    assert parsed.mismatched == []


def test_published_numbers_stand_beside_the_studys_own(tables):
    facts = StudyFacts(
        "s", published=Publication((PublishedNumber("imagenet", "dice", 0.871, 0.01, reference="table 2"),
                                    PublishedNumber("imagenet", "iou", 0.5, reference="table 3"))),
    )  # fmt: skip
    text = parse(page_of(tables, facts)).visible_text
    assert re.search(r"imagenet all dice 0\.871 ± 0\.010 0\.8\d\d \(0\.\d+ to 0\.\d+\) table 2", text)
    assert "imagenet all iou 0.500 not measured table 3" in text


def test_one_annotation_count_is_drawn_as_means_with_intervals_and_runs_without_subjects_ask_for_seeds():
    tables = several_tasks(2, sources={"random": False, "imagenet": False}, annotations=(8,), seeds=(0, 1, 2), epochs=2)
    stages = [row | {"metric": "auc"} for row in tables.stages.to_pylist()]
    scored = StudyTables("s", tables.cells, to_table("stages", stages), tables.epochs, tables.cases)
    page = page_of(scored)
    specs = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    assert [layer["mark"]["type"] for layer in specs["score-0"]["layer"]] == ["rule", "point"]
    text = parse(page).visible_text
    assert "With as few as 3 seeds and 1 pair the test cannot decide all: it needs more seeds." in text
    assert "test subject" not in text.split("Score against annotations")[0]


def test_several_settings_are_named_apart():
    tables = simulated_study(annotations=(8,), seeds=(0, 1), epochs=3)
    cells = tables.cells.to_pylist()
    for cell in cells:
        cell["tuning"] = "frozen" if cell["seed"] == 1 else "full"
    split = StudyTables("s", to_table("cells", cells), tables.stages, tables.epochs, tables.cases)
    text = parse(page_of(split)).visible_text
    assert "frozen: With 8 annotated slices" in text
    assert "full: 8 annotated slices" in text


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("subject", "annotated patients"),
        ("image", "annotated images"),
        ("volume", "annotated volumes"),
        (None, "annotated slices"),
    ],
)
def test_counts_are_of_what_the_study_counts(unit, said, tables):
    cells = [cell | {"annotation_unit": unit} for cell in tables.cells.to_pylist()]
    text = parse(
        page_of(StudyTables("s", to_table("cells", cells), tables.stages, tables.epochs, tables.cases))
    ).visible_text
    assert said in text
    others = {"annotated patients", "annotated images", "annotated volumes", "annotated slices"} - {said}
    assert not any(other in text for other in others)


def test_tasks_with_scores_of_their_own_are_each_called_by_its_name():
    tables = several_tasks(2, annotations=(8, 30), seeds=(0, 1), epochs=2)
    aucs = {cell["stage"] for cell in tables.cells.to_pylist() if cell["task"] == "task2"}
    stages = [row | ({"metric": "auc"} if row["stage"] in aucs else {}) for row in tables.stages.to_pylist()]
    mixed = StudyTables("s", tables.cells, to_table("stages", stages), tables.epochs, tables.cases)
    text = parse(page_of(mixed)).visible_text
    assert re.search(r"task1: With 8 annotated slices, [^:]+ scores highest: Dice", text)
    assert re.search(r"task2: With 8 annotated slices, [^:]+ scores highest: AUC", text)


def test_equal_results_give_an_equal_page(tables, page):
    again = StudyTables(tables.study, tables.cells, tables.stages, tables.epochs, tables.cases)
    assert page_of(again) == page
