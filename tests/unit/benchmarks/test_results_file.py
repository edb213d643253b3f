from __future__ import annotations

import json

import pytest

from tests.benchmarks.__main__ import main, names
from tests.benchmarks.measurement import Measurement, alternate
from tests.benchmarks.results_file import markdown, setup_facts, table, write_results

MEASUREMENT = Measurement(
    [{"variant": "ours", "images/s": 1234.5, "ratio": 1.0}, {"variant": "theirs", "images/s": 98.76, "ratio": 0.08}],
    "Ours is faster.",
    {"repetitions": 3},
)


def test_table_rounds_to_three_digits_and_aligns_numbers_to_the_right():
    assert table(MEASUREMENT.rows).splitlines() == [
        "| variant | images/s | ratio |",
        "| --- | ---: | ---: |",
        "| ours | 1,230 | 1 |",
        "| theirs | 98.8 | 0.08 |",
    ]


def test_page_says_what_it_means_and_how_to_repeat_it():
    page = markdown("speed", "How fast.", MEASUREMENT, {"CPU": "some"})
    assert page.startswith("# speed\n\nHow fast.\n\n| variant")
    assert "Ours is faster." in page
    assert "- repetitions: 3" in page
    assert "- CPU: some\n- Repeat with: `python -m tests.benchmarks speed`" in page


def test_json_keeps_the_numbers_unrounded(tmp_path):
    write_results(tmp_path / "new", "speed", "How fast.", MEASUREMENT, {})
    values = json.loads((tmp_path / "new/speed.json").read_text())
    assert values["rows"][0]["images/s"] == 1234.5
    assert values["reading"] == "Ours is faster."


def test_setup_names_versions_but_not_the_machine():
    facts = setup_facts()
    assert {"CPU", "Python", "raysweep", "torch", "ray", "Date"} <= set(facts)
    import platform

    assert platform.node() not in facts.values()


def test_variants_run_in_turn_after_a_warm_up():
    order: list[str] = []
    medians = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repetitions=2)
    assert order == ["a", "b"] * 3
    assert set(medians) == {"a", "b"}


def test_unknown_benchmark_is_refused_with_the_known_names(capsys):
    with pytest.raises(SystemExit):
        main(["sped"])
    assert f"unknown benchmark sped; there are {', '.join(names())}" in capsys.readouterr().err
