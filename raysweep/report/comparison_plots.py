"""Plots that set arms side by side: heat map, ranking with critical differences, score against hours."""

from __future__ import annotations

from typing import Any

import altair as alt

from raysweep.analysis import Arm, Setting
from raysweep.report.findings import Findings, Row, at, longest
from raysweep.report.plots import ROW_PX, Marks, Panel, arm_axis, count_heading, finish, short

_MISSING, _QUIET = "#e1e5ea", "#57606a"
_WHY = {"failed": "fail", "skipped": "skip", "stopped": "stop", "not_needed": "none", "pending": "wait"}
"""Why a cell of the map is empty, in words that fit a phone."""


def heat_panels(findings: Findings) -> list[Panel]:
    """Return the mean score as a map of arms by annotation counts, one panel per setting; missing cells say why."""
    panels = []
    for setting in findings.settings:
        rows = [row for row in longest(findings.scores) if Setting.of(row) == setting]
        if any(row["mean"] is not None for row in rows) and len(findings.annotations(setting)) > 1:
            metric, what = findings.metric_of(setting), findings.unit(setting)
            text = f"Map of mean test {metric}: one row per arm, one column per number of annotated {what}s"
            panels.append(Panel(findings.setting_name(setting), _heat(rows, what), text))
    return panels


def _heat(rows: list[Row], what: str) -> dict[str, Any]:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    counts = sorted({row["annotations"] for row in rows})
    values = [
        {"arm": r["arm"], "count": str(r["annotations"]), "mean": short(r["mean"]), "low": short(r["low"]),
         "high": short(r["high"]), "label": _label(r)}
        for r in rows
    ]  # fmt: skip
    means = [value["mean"] for value in values if value["mean"] is not None]
    middle = (min(means) + max(means)) / 2
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("count:N", sort=[str(c) for c in counts], title=f"Annotated {what}s",
                axis=alt.Axis(labelAngle=0, orient="top", grid=False)),
        y=alt.Y("arm:N", sort=arms, title=None, axis=arm_axis(grid=False)),
        tooltip=["arm:N", "count:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "low", "high"))],
    )  # fmt: skip
    known, missing = base.transform_filter("isValid(datum.mean)"), base.transform_filter("!isValid(datum.mean)")
    scale = alt.Scale(scheme="cividis", domain=[min(means), max(means)])
    ink = alt.when(f"datum.mean > {middle}").then(alt.value("#000000")).otherwise(alt.value("#ffffff"))
    layers = alt.layer(
        known.mark_rect(stroke="#ffffff", strokeWidth=2).encode(color=alt.Color("mean:Q", scale=scale, legend=None)),
        missing.mark_rect(stroke="#ffffff", strokeWidth=2, color=_MISSING),
        known.mark_text(fontSize=11).encode(text="label:N", color=ink),
        missing.mark_text(fontSize=11, color=_QUIET).encode(text="label:N"),
    )
    return finish(layers, height=ROW_PX * len(arms))


def _label(row: Row) -> str:
    if row["mean"] is not None:
        partial = any(row[f"num_{why}"] for why in _WHY)
        return f"{row['mean']:.3f}".removeprefix("0") + ("*" if partial else "")
    return next((word for name, word in _WHY.items() if row[f"num_{name}"]), "–")


def ranking_panels(findings: Findings, marks: Marks) -> list[Panel]:
    """Return mean ranks with bars as wide as the critical difference; arms whose bars overlap are not told apart."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in findings.ranking:
        if row["mean_rank"] is not None:
            groups.setdefault((row["task"], row["backbone"], row["tuning"], row["annotations"]), []).append(row)
    keys = list(groups)
    if len({key[:3] for key in keys}) == 1:
        keys = [keys[0], keys[-1]] if len(keys) > 1 else keys
    panels = []
    for key in keys:
        rows = sorted(groups[key], key=lambda row: row["mean_rank"])
        text = (
            f"Mean rank of {len(rows)} arms over {rows[0]['num_blocks']} {_blocks(rows[0])}, best first: "
            + ", ".join(f"{row['arm']} {row['mean_rank']:.2f}" for row in rows)
        )
        panels.append(Panel(_ranking_heading(findings, rows[0]), _ranking(rows, marks, findings), text))
    return panels


def _blocks(row: Row) -> str:
    return "tasks" if row["blocks"] == "task" else "test subjects"


def _ranking_heading(findings: Findings, row: Row) -> str:
    if row["blocks"] == "task":
        several = len({(r["backbone"], r["tuning"]) for r in findings.ranking}) > 1
        return f"{row['backbone']} · {row['tuning']}" if several else ""
    return count_heading(findings, Setting.of(row), row["annotations"])


def _ranking(rows: list[Row], marks: Marks, findings: Findings) -> dict[str, Any]:
    series = {row["arm"]: Arm.of(row).series for row in longest(findings.scores)}
    values = [
        {"arm": row["arm"], "series": series[row["arm"]], "rank": short(row["mean_rank"]),
         "low": short(row["mean_rank"] - row["critical_difference"] / 2),
         "high": short(row["mean_rank"] + row["critical_difference"] / 2)}
        for row in rows
    ]  # fmt: skip
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("arm:N", sort=[row["arm"] for row in rows], title=None, axis=arm_axis(grid=True)),
        color=marks.encode_colour(),
        tooltip=["arm:N", alt.Tooltip("rank:Q", format=".2f")],
    )
    domain = [min(0.5, *(value["low"] for value in values)), max(len(rows) + 0.5, *(v["high"] for v in values))]
    scale = alt.Scale(domain=domain, nice=False)
    x = alt.X("rank:Q", title="Mean rank, 1 is best", scale=scale, axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    layers = alt.layer(
        base.mark_bar(height=9, opacity=0.3).encode(x=alt.X("low:Q", scale=scale), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, shape=marks.encode_shape()),
    )
    return finish(layers, height=ROW_PX * len(rows))


def efficiency_panels(findings: Findings, marks: Marks) -> list[Panel]:
    """Return the score against the hours of a cell, at each setting's largest count; a line joins the Pareto front."""
    panels = []
    for setting in findings.settings:
        for count in findings.annotations(setting)[-1:]:
            rows = [row for row in at(findings.efficiency, setting, count) if row["hours"]]
            hours = [row["hours"] for row in rows]
            if len(rows) > 1 and max(hours) > 1.01 * min(hours):  # else a plot of prices says nothing
                front = ", ".join(row["arm"] for row in sorted(rows, key=lambda r: r["hours"]) if row["on_front"])
                text = f"Mean test {findings.metric_of(setting)} against hours of one cell; the Pareto front: {front}"
                panels.append(
                    Panel(
                        count_heading(findings, setting, count),
                        _efficiency(findings.metric_of(setting), rows, marks),
                        text,
                    )
                )
    return panels


def _efficiency(metric: str, rows: list[Row], marks: Marks) -> dict[str, Any]:
    minutes = max(row["hours"] for row in rows) < 2
    unit, factor = ("Minutes", 60.0) if minutes else ("Hours", 1.0)
    values = [
        {"arm": row["arm"], "series": Arm.of(row).series, "mean": short(row["mean"]), "front": row["on_front"],
         "time": float(f"{row['hours'] * factor:.4g}")}
        for row in rows
    ]  # fmt: skip
    spread = max(v["time"] for v in values) / max(min(v["time"] for v in values), 1e-9)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("time:Q", title=f"{unit} for one cell, its pretraining included", axis=alt.Axis(grid=False),
                scale=alt.Scale(type="log", nice=False, padding=16) if spread > 20
                else alt.Scale(zero=False, nice=False, padding=16)),
        y=alt.Y("mean:Q", title=f"Test {metric}", scale=alt.Scale(zero=False, nice=True, padding=12)),
        tooltip=["arm:N", alt.Tooltip("mean:Q", format=".3f"), alt.Tooltip("time:Q", format=".3g")],
    )  # fmt: skip
    front = base.transform_filter("datum.front").mark_line(
        interpolate="step-after", color="#8c959f", strokeDash=[4, 3], strokeWidth=1.5
    )
    points = base.mark_point(filled=True, size=80).encode(
        color=marks.encode_colour(),
        shape=marks.encode_shape(),
        opacity=alt.condition("datum.front", alt.value(1), alt.value(0.45)),
    )
    return finish(alt.layer(front, points), height=260)
