"""Tables of runs as Hosseinzadeh Taher et al. 2021 print theirs: mean and spread of runs, and a t-test by stars.

Beside raysweep's own answers, not in their place: the spread is that of the population, runs are taken for independent
samples although they share test cases, and nothing corrects for the number of tests.

Source: Hosseinzadeh Taher et al. 2021, arXiv:2108.05930, tables 1 to 3, and its public code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raysweep.analysis import Arm, Setting
from raysweep.analysis._tests import independent_t_p
from raysweep.report.findings import Findings
from raysweep.report.paper_tables import PaperTable

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""p below which a difference to the baseline gets so many stars; n.s. above all."""


def run_tables(findings: Findings) -> list[PaperTable]:
    """Return a table for each setting: arms by annotation count, per cent; the baseline is the findings' reference."""
    tables = []
    for setting in findings.settings:
        runs = _runs(findings, setting)
        counts = sorted({count for _, count in runs})
        rows = []
        for arm in dict.fromkeys(arm for arm, _ in runs):
            cells = [_cell(runs.get((arm, count)), _baseline(findings, runs, arm, count)) for count in counts]
            rows.append((arm, *cells))
        name = findings.setting_name(setting)
        metric = findings.metric_of(setting)
        caption = (
            f"{name + ': ' if name else ''}Test {metric} in per cent: mean ± standard deviation of "
            f"runs (ddof 0), and independent t-tests against {findings.reference} (n.s., * p < .05, ** p < .01, "
            "*** p < .001), not corrected."
        )
        slug = "".join(character if character.isalnum() else "-" for character in name.lower()).strip("-")
        tables.append(PaperTable(f"runs{'-' if slug else ''}{slug}", caption, ("Arm", *map(str, counts)), tuple(rows)))
    return [table for table in tables if table.rows]


def stars(p: float) -> str:
    """Return how a p is printed."""
    if np.isnan(p):
        return ""
    return next((text for bound, text in STARS if p < bound), "n.s.")


def _runs(findings: Findings, setting: Setting) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Return the test scores of the runs of each arm and annotation count."""
    scores: dict[tuple[str, int], list[float]] = {}
    for row in findings.trials:
        if Setting.of(row) == setting and row["test_score"] is not None:
            scores.setdefault((Arm.of(row).label, row["annotations"]), []).append(row["test_score"])
    return {key: np.array(values) for key, values in scores.items()}


def _baseline(
    findings: Findings, runs: dict[tuple[str, int], NDArray[np.float64]], arm: str, count: int
) -> NDArray[np.float64] | None:
    return None if arm == findings.reference else runs.get((findings.reference, count))


def _cell(scores: NDArray[np.float64] | None, baseline: NDArray[np.float64] | None) -> str:
    if scores is None:
        return ""
    text = f"{100 * scores.mean():.2f} ± {100 * scores.std(ddof=0):.2f}"
    verdict = "" if baseline is None else stars(independent_t_p(scores, baseline))
    return f"{text} {verdict}".rstrip()
