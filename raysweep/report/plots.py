"""Plots of a study's findings, as Vega-Lite specifications with their data inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from raysweep.analysis import Arm, Setting
from raysweep.report.findings import Findings, Row, at, longest
from raysweep.results.read import StudyTables

# Okabe & Ito's palette without yellow, which is too light for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
_INK, _QUIET, _GRID = "#1f2328", "#57606a", "#e6e8eb"
_MAX_TICKS = 10
ROW_PX = 34
_TWO_LINES = (
    "indexof(datum.label, ' · ') < 0 ? datum.label : [slice(datum.label, 0, indexof(datum.label, ' · ')), "
    "slice(datum.label, indexof(datum.label, ' · ') + 3)]"
)
Spec = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One drawing: its heading (empty if it stands alone), its specification, and what it shows in words."""

    heading: str
    spec: Spec
    alt: str


@dataclass(frozen=True)
class Marks:
    """Colour and shape of every series, the same in all plots."""

    series: tuple[str, ...]

    def colour(self, series: str) -> str:
        """Return the series' colour."""
        return PALETTE[self.series.index(series) % len(PALETTE)]

    def shape(self, series: str) -> str:
        """Return the series' shape; colour and shape together tell 49 series apart."""
        position = self.series.index(series)
        return SHAPES[(position + position // len(PALETTE)) % len(SHAPES)]

    def encode_colour(self) -> alt.Color:
        """Return the colour encoding; the page draws the legend itself."""
        scale = alt.Scale(domain=list(self.series), range=[self.colour(s) for s in self.series])
        return alt.Color("series:N", scale=scale, legend=None)

    def encode_shape(self) -> alt.Shape:
        """Return the shape encoding."""
        scale = alt.Scale(domain=list(self.series), range=[self.shape(s) for s in self.series])
        return alt.Shape("series:N", scale=scale, legend=None)


def score_panels(findings: Findings, marks: Marks) -> list[Panel]:
    """Return the test score against the annotation count, one panel per setting."""
    panels = []
    for setting in findings.settings:
        rows = [row for row in longest(findings.scores) if Setting.of(row) == setting]
        if any(row["mean"] is not None for row in rows):
            counts = findings.annotations(setting)
            if len(counts) == 1:
                spec = _intervals(_points(rows), findings.metric_of(setting), marks)
                alt_text = f"Mean test {findings.metric_of(setting)} with its interval, one row per source"
                panels.append(Panel(count_heading(findings, setting, counts[0]), spec, alt_text))
                continue
            x = _log_x("annotations", counts, f"Annotated {findings.unit(setting)}s")
            spec = _banded(_points(rows), x, _score_y(f"Test {findings.metric_of(setting)}"), marks, height=340)
            alt_text = (
                f"Mean test {findings.metric_of(setting)} by number of annotated {findings.unit(setting)}s, "
                f"{counts[0]} to {counts[-1]}, one line per source"
            )
            panels.append(Panel(findings.setting_name(setting), spec, alt_text))
    return panels


def _intervals(points: list[Row], metric: str, marks: Marks) -> Spec:
    """Return means with their intervals, the best first: what is left of a curve with one annotation count."""
    ordered = [point["arm"] for point in sorted(points, key=lambda point: -point["mean"])]
    base = alt.Chart(alt.InlineData(values=points)).encode(
        y=alt.Y("arm:N", sort=ordered, title=None, axis=arm_axis(grid=True)),
        color=marks.encode_colour(),
        tooltip=["arm:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "low", "high"))],
    )
    scale = alt.Scale(zero=False, nice=True)
    x = alt.X("mean:Q", title=f"Test {metric}", scale=scale, axis=alt.Axis(grid=False))
    layers = alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, shape=marks.encode_shape()),
    )
    return finish(layers, height=ROW_PX * len(points))


def arm_axis(*, grid: bool) -> alt.Axis:
    """Return an axis of arms: the source on one line, method and epochs on the next, so that labels fit a phone."""
    raised = {"condition": {"test": "indexof(datum.label, ' · ') >= 0", "value": -6}, "value": 0}
    return alt.Axis(grid=grid, labelLimit=150, labelExpr=_TWO_LINES, labelLineHeight=13, labelOffset=raised)


def length_panels(findings: Findings, marks: Marks) -> list[Panel]:
    """Return the test score against pretraining epochs, one panel per setting and annotation count."""
    panels = []
    for setting in findings.settings:
        for count in findings.annotations(setting):
            rows = [row for row in at(findings.lengths, setting, count) if row["mean"] is not None]
            if not rows:
                continue
            epochs = sorted({row["pretrain_epochs"] for row in rows})
            x = _log_x("pretrain_epochs", epochs, "Pretraining epochs")
            layers = _layers(_points(rows), x, _score_y(f"Test {findings.metric_of(setting)}"), marks)
            without = [
                row
                for row in at(findings.scores, setting, count)
                if row["pretrain_epochs"] is None and row["mean"] is not None
            ]
            if without:
                layers.insert(0, _reference_lines(_points(without), marks))
            spec = finish(alt.layer(*layers), height=230)
            annotated = findings.annotated(setting, count)
            alt_text = f"Mean test {findings.metric_of(setting)} by pretraining epochs with {annotated}"
            panels.append(Panel(count_heading(findings, setting, count), spec, alt_text))
    return panels


def curve_panels(findings: Findings, tables: StudyTables, marks: Marks) -> list[Panel]:
    """Return the validation score by epoch, one panel per setting and annotation count; bands span the
    seeds."""
    rows = longest(curves(tables))
    panels = []
    for setting in findings.settings:
        for count in findings.annotations(setting):
            own = at(rows, setting, count)
            if own:
                epochs = sorted({row["epoch"] for row in own})
                ticks = {"values": epochs} if len(epochs) <= _MAX_TICKS else {"tickMinStep": 1}
                x = alt.X("epoch:Q", title="Fine-tuning epoch", axis=alt.Axis(grid=False, format="d", **ticks))
                y = _score_y(
                    f"Validation {findings.metric_of(setting)}", [row for row in rows if Setting.of(row) == setting]
                )
                spec = _banded(_points(own), x, y, marks, height=230, points_drawn=False)
                alt_text = (
                    f"Validation {findings.metric_of(setting)} by epoch with {findings.annotated(setting, count)}"
                )
                panels.append(Panel(count_heading(findings, setting, count), spec, alt_text))
    return panels


def curves(tables: StudyTables) -> list[Row]:
    """Return the validation score by arm, annotation count and epoch: mean, lowest and highest over seeds."""
    found = tables.query(
        """
        SELECT t.task, t.backbone, t.tuning, t.source, t.method, t.pretrain_epochs, t.annotations, e.epoch,
               list(e.value ORDER BY t.seed) AS values
        FROM trials t JOIN epochs e ON e.stage = t.stage AND e.split = 'val' AND e.metric = t.metric
        WHERE t.status = 'done' AND e.value IS NOT NULL
        GROUP BY ALL ORDER BY ALL
        """
    ).to_pylist()
    return [
        {**row, "mean": float(np.mean(row["values"])), "low": min(row["values"]), "high": max(row["values"])}
        for row in found
    ]


def cost_panels(findings: Findings) -> list[Panel]:
    """Return stage time by kind, with sharing and as a naive grid would have taken."""
    rows = []
    for row in findings.cost[:-1]:
        for grid, name in (("With sharing", "shared_wall_s"), ("Naive grid", "naive_wall_s")):
            rows.append({"grid": grid, "kind": row["kind"], "hours": row[name] / 3600})
    if not any(row["hours"] for row in rows):
        return []
    colours = alt.Scale(domain=["pretrain", "finetune"], range=["#0072B2", "#56B4E9"])
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(height={"band": 0.62})
        .encode(
            x=alt.X("hours:Q", title="Hours of stage time", axis=alt.Axis(tickCount=5)),
            y=alt.Y("grid:N", title=None, sort=["With sharing", "Naive grid"], axis=alt.Axis(grid=False)),
            color=alt.Color("kind:N", scale=colours, title=None, legend=alt.Legend(orient="top")),
            order=alt.Order("kind:N", sort="descending"),
            tooltip=["grid:N", "kind:N", alt.Tooltip("hours:Q", format=".3g")],
        )
    )
    text = "Hours of stage time by kind of stage, with shared pretraining and as a naive grid"
    return [Panel("", finish(chart, height=110), text)]


def _points(rows: Sequence[Row]) -> list[Row]:
    keep = ("annotations", "pretrain_epochs", "epoch", "num_seeds")
    points = []
    for row in rows:
        if row["mean"] is not None:
            arm = Arm.of(row)
            values = {name: short(row[name]) for name in ("mean", "low", "high")}
            kept = {name: row[name] for name in keep if row.get(name) is not None}
            points.append({"series": arm.series, "arm": arm.label, **values, **kept})
    return points


def _banded(points: list[Row], x: alt.X, y: alt.Y, marks: Marks, *, height: int, points_drawn: bool = True) -> Spec:
    return finish(alt.layer(*_layers(points, x, y, marks, points_drawn=points_drawn)), height=height)


def _layers(points: list[Row], x: alt.X, y: alt.Y, marks: Marks, *, points_drawn: bool = True) -> list[alt.Chart]:
    base = alt.Chart(alt.InlineData(values=points)).encode(x=x, color=marks.encode_colour())
    tooltip = ["arm:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "low", "high"))]
    layers = [
        base.mark_area(opacity=0.13, line=False).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=y, tooltip=tooltip),
    ]
    if points_drawn:
        drawn = base.mark_point(filled=True, size=62, opacity=1)
        layers.append(drawn.encode(y=y, shape=marks.encode_shape(), tooltip=tooltip))
    return layers


def _reference_lines(points: list[Row], marks: Marks) -> alt.Chart:
    base = alt.Chart(alt.InlineData(values=points)).mark_rule(strokeDash=[5, 4], strokeWidth=1.5)
    return base.encode(y="mean:Q", color=marks.encode_colour(), tooltip=["arm:N", "mean:Q"])


def _log_x(field: str, values: Sequence[int], title: str) -> alt.X:
    kind = "symlog" if values[0] == 0 else "log"
    scale = alt.Scale(type=kind, nice=False, padding=14)
    # Vega thins ticks to tickCount, given values too.
    overlap = len(values) > _MAX_TICKS
    axis = alt.Axis(values=list(values), tickCount=len(values), format="d", grid=False, labelOverlap=overlap)
    return alt.X(f"{field}:Q", scale=scale, axis=axis, title=title)


def _score_y(title: str, shared: Sequence[Row] = ()) -> alt.Y:
    """Return the score axis; ``shared`` are the rows of the panels that must have the same scale."""
    scale = alt.Scale(zero=False, nice=True)
    if shared:
        domain = [min(row["low"] for row in shared), max(row["high"] for row in shared)]
        scale = alt.Scale(domain=domain, zero=False, nice=True)
    return alt.Y("mean:Q", title=title, scale=scale)


def finish(chart: alt.Chart | alt.LayerChart, *, height: int) -> Spec:
    """Return a chart's specification in the page's style, as wide as the page lets it be."""
    styled = (
        chart.properties(width="container", height=height)
        .configure(font="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            domainColor=_QUIET, tickColor=_QUIET, gridColor=_GRID, labelColor=_QUIET, titleColor=_INK,
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=8, tickCount=5,
        )
        .configure_legend(labelFontSize=12, labelColor=_INK, symbolType="square")
    )  # fmt: skip
    spec: Spec = styled.to_dict()
    spec.pop("$schema", None)
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def count_heading(findings: Findings, setting: Setting, count: int) -> str:
    """Return the heading of a panel at one annotation count."""
    name = findings.setting_name(setting)
    text = findings.annotated(setting, count)
    return f"{name}: {text}" if name else text


def short(value: float | None) -> float | None:
    """Return a value as the page holds it: four decimals."""
    return None if value is None else round(value, 4)
