"""The HTML page: one file that opens anywhere, without a network.

Its scripts are allowed by their hashes in a content security policy, so no text of a study, whatever it
holds, can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup, escape

from raysweep.analysis import Setting
from raysweep.analysis._scores import MISSING
from raysweep.report import comparison_plots, plots
from raysweep.report.definitions import score_definition
from raysweep.report.facts import StudyFacts
from raysweep.report.findings import Findings, Row, find
from raysweep.report.live import InFlight
from raysweep.report.published import PublishedNumber
from raysweep.report.sentences import answers, arm_pattern
from raysweep.report.slices import CLASS_COLOURS, ReadExamples, galleries
from raysweep.report.words import duration, score
from raysweep.results.read import StudyTables

_ASSETS = "raysweep.report"


def build_report(
    tables: StudyTables, examples: ReadExamples, facts: StudyFacts, in_flight: InFlight | None = None
) -> str:
    """Return the report as one HTML document.

    ``examples`` returns a finetune stage's example slices, none if it has none. With ``in_flight`` the page says what
    is running and loads itself anew. Equal input gives an equal page.
    """
    findings = find(tables)
    marks = plots.Marks(tuple(findings.series))
    sections = all_panels(findings, tables)
    scripts = [vega_bundle(), _asset("page.js")]
    said = answers(findings)
    return _environment(findings).get_template("page.html.j2").render(
        facts=facts,
        findings=findings,
        answers=said,
        best=findings.best(),
        marks=marks,
        sections=sections,
        specs=_specs(sections),
        galleries=galleries(findings, examples),
        classes=_classes(tables),
        published=[_published(number, findings) for number in facts.published.numbers],
        in_flight=in_flight,
        reasons=MISSING,
        score_definition=score_definition(findings),
        num_subjects=max((row["num_subjects"] or 0 for row in findings.scores), default=0),
        num_seeds=len({row["seed"] for row in findings.trials}),
        css=Markup(_asset("page.css")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
    )  # fmt: skip


def all_panels(findings: Findings, tables: StudyTables) -> dict[str, list[plots.Panel]]:
    """Return every plot of a study by section; sections without one are empty."""
    marks = plots.Marks(tuple(findings.series))
    return {
        "score": plots.score_panels(findings, marks),
        "heat": comparison_plots.heat_panels(findings),
        "length": plots.length_panels(findings, marks),
        "curve": plots.curve_panels(findings, tables, marks),
        "ranking": comparison_plots.ranking_panels(findings, marks),
        "cost": plots.cost_panels(findings),
        "efficiency": comparison_plots.efficiency_panels(findings, marks),
    }


@cache
def vega_bundle() -> str:
    """Return the JavaScript that draws the plots: Vega, Vega-Lite and Vega-Embed, one script."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script")


def _specs(sections: dict[str, list[plots.Panel]]) -> Markup:
    """Return the plots' specifications as JSON that is safe inside a script element."""
    specs = {f"{name}-{i}": panel.spec for name, panels in sections.items() for i, panel in enumerate(panels)}
    text = json.dumps(specs, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(scripts: Sequence[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def _classes(tables: StudyTables) -> list[tuple[str, str]]:
    """Return name and colour of every foreground class."""
    rows = tables.query(
        "SELECT DISTINCT class_index, class_name FROM cases WHERE class_index > 0 ORDER BY class_index"
    ).to_pylist()
    return [
        (row["class_name"] or f"class {row['class_index']}", CLASS_COLOURS[(row["class_index"] - 1) % 7])
        for row in rows
    ]


def _published(number: PublishedNumber, findings: Findings) -> dict[str, Any]:
    """Return a published number with this study's own at the same arm and annotation count, if there is
    one."""
    rows = [
        row
        for row in findings.scores
        if row["arm"] == number.arm and number.metric in (row["metric"] or "") and number.task in (None, row["task"])
    ]
    counts = [row["annotations"] for row in rows]
    wanted = number.annotations if number.annotations is not None else max(counts, default=None)
    own: Row | None = next((row for row in rows if row["annotations"] == wanted), None)
    return {"number": number, "own": own}


def _environment(findings: Findings) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_ASSETS, "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": score, "duration": duration}
    environment.filters["strong_arms"] = partial(_strong, pattern=arm_pattern(findings))
    environment.globals |= {"setting_of": Setting.of, "count_heading": plots.count_heading}
    return environment


def _strong(sentence: str, pattern: re.Pattern[str]) -> Markup:
    """Return a sentence as markup with its arms in bold; everything else is escaped."""
    pieces = pattern.split(sentence)
    marked = [Markup("<strong>{}</strong>").format(p) if i % 2 else escape(p) for i, p in enumerate(pieces)]
    return Markup("").join(marked)


@cache
def _asset(name: str) -> str:
    return (resources.files(_ASSETS) / "assets" / name).read_text(encoding="utf-8")
