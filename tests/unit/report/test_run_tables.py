"""The table of runs that one published study prints, and that only it gets."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from raysweep.analysis import Arm
from raysweep.report.files import write_files
from raysweep.report.findings import find
from raysweep.report.run_tables import run_tables, stars
from raysweep.study.load import validate_study
from tests.simulate import write_to
from tests.studies import study_document
from tests.unit.report.study_pages import partial_study


def test_spreads_are_of_the_population_and_tests_independent():
    findings = find(partial_study())
    (table,) = run_tables(findings)
    scores: dict = {}
    for row in findings.trials:
        if row["test_score"] is not None:
            scores.setdefault((Arm.of(row).label, str(row["annotations"])), []).append(row["test_score"])
    checked = 0
    for arm, *cells in table.rows:
        for count, cell in zip(table.header[1:], cells, strict=True):
            own, baseline = scores.get((arm, count)), scores.get((findings.reference, count))
            if own is None:
                assert cell == ""
                continue
            mean, _, spread, *verdict = cell.split()
            assert float(mean) == pytest.approx(100 * np.mean(own), abs=0.006)
            assert float(spread) == pytest.approx(100 * np.sqrt(np.mean((own - np.mean(own)) ** 2)), abs=0.006)
            if arm != findings.reference and baseline is not None:
                assert "".join(verdict) == stars(scipy_stats.ttest_ind(own, baseline).pvalue)
                checked += 1
            else:
                assert verdict == []
    assert checked


@pytest.mark.parametrize(("p", "text"), [(0.2, "n.s."), (0.05, "n.s."), (0.04, "*"), (0.009, "**"), (1e-5, "***")])
def test_stars_are_those_of_the_paper(p, text):
    assert stars(p) == text


@pytest.mark.parametrize(("statistics", "there"), [("taher2021", True), ("paired", False)])
def test_only_a_study_that_asks_for_it_gets_the_table(tiny_store, statistics, there):
    write_to(tiny_store, partial_study())
    document = study_document("cardiac.h5", "leaves.h5") | {"study": "simulated", "statistics": statistics}
    written = write_files(validate_study(document), tiny_store, None, ["md"]).files
    assert any(path.endswith("tables/runs.md") for path in written) == there
