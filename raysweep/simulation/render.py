"""A forecast as text, as JSON-like values, and as rows for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysweep.planning.cost import ASSUMPTION
from raysweep.simulation.forecast import Forecast, Range, SizeForecast
from raysweep.simulation.recommend import Advice


def render_forecast(found: Forecast, advice: Advice) -> RenderableType:
    """Draw a forecast for the terminal."""
    head = f"{found.study}: {found.num_left} of {found.num_stages} stages left to run"
    if not found.num_left:
        return Text(head)
    chosen = f"take {advice.cluster}: {advice.reason}" if advice.cluster else advice.reason
    return Group(Text(head), _table(found), Text("\n".join([chosen, *_path_lines(found), *_notes(found)])))


def forecast_json(found: Forecast, advice: Advice) -> dict[str, Any]:
    """Return a forecast as JSON-like values: what was assumed, every cluster, and the advice."""
    return {
        "study": found.study,
        "stages_left": found.num_left,
        "stages": found.num_stages,
        "stages_assumed": found.num_assumed,
        "draws": found.num_draws,
        "assumed_factor": found.doubt.assumed_factor,
        "overheads": asdict(found.overheads),
        "spot": asdict(found.spot),
        "contention": found.contention,
        "critical_path": [
            {"stage": stage.id, "name": stage.name, "kind": stage.kind, "epochs": epoch, "seconds": seconds}
            for stage, epoch, seconds in found.path
        ],
        "clusters": forecast_rows(found),
        "recommended": asdict(advice),
    }


def forecast_rows(found: Forecast) -> list[dict[str, Any]]:
    """Return one row per cluster; times in seconds, low and high being the 5th and 95th percentile of the draws."""
    return [_row(size) for size in found.sizes]


def _row(size: SizeForecast) -> dict[str, Any]:
    cost = size.cost
    return {
        "cluster": size.cluster.name,
        "nodes": size.cluster.num_nodes,
        "gpus": size.cluster.total("GPU"),
        "cores": size.cluster.total("CPU"),
        "makespan_s": size.makespan_s.median,
        "makespan_low_s": size.makespan_s.low,
        "makespan_high_s": size.makespan_s.high,
        "utilisation": size.utilisation.median,
        "bound_s": size.bound_s.median,
        "bound_by": "path" if size.waits_for_path else size.bounds[0].scarcest,
        "makespan_over_bound": size.ratio.median,
        "nodes_lost": size.losses.median,
        "cost": None if cost is None else cost.median,
        "cost_low": None if cost is None else cost.low,
        "cost_high": None if cost is None else cost.high,
        "currency": None if size.prices is None else size.prices.currency,
    }


def _table(found: Forecast) -> Table:
    table = Table(box=None, header_style="bold")
    has_cost = any(size.prices is not None for size in found.sizes)
    has_losses = any(trace.num_losses for size in found.sizes for trace in size.traces)
    columns = ["cluster", "nodes", "makespan", "used", "bound", "makespan / bound", "bound by"]
    columns += ["nodes lost"] * has_losses + ["cost"] * has_cost
    for name in columns:
        table.add_column(name, justify="left" if name in ("cluster", "bound by") else "right")
    for size in found.sizes:
        table.add_row(*_cells(size, has_losses=has_losses, has_cost=has_cost))
    return table


def _cells(size: SizeForecast, *, has_losses: bool, has_cost: bool) -> Iterator[str]:
    yield size.cluster.name
    yield str(size.cluster.num_nodes)
    yield _between(size.makespan_s, _time)
    yield f"{size.utilisation.median:.0%}"
    yield _time(size.bound_s.median)
    yield f"{size.ratio.median:.2f}"
    yield "longest path" if size.waits_for_path else f"{_scarcest(size)} work"
    if has_losses:
        yield f"{size.losses.median:g}"
    if has_cost:
        currency = size.prices.currency if size.prices else ""
        yield "" if size.cost is None else f"{_between(size.cost, _amount)} {currency}"


def _scarcest(size: SizeForecast) -> str:
    return size.bounds[0].scarcest


def _path_lines(found: Forecast) -> Iterator[str]:
    seconds = sum(part for _, _, part in found.path)
    yield f"longest path, {_time(seconds)} however many nodes there are:"
    for stage, epoch, part in found.path:
        until = "" if epoch == stage.epochs else f", up to epoch {epoch}"
        yield f"  {stage.kind} {stage.name}: {_time(part)}{until}"


def _notes(found: Forecast) -> Iterator[str]:
    costs = found.overheads
    measured = found.num_left - found.num_assumed
    if found.num_assumed:
        known = f"measured for {measured} of {found.num_left} stages; for the others " if measured else ""
        yield (
            f"rates: {known}assumed, {ASSUMPTION}, and taken to be right up to a factor of "
            f"{found.doubt.assumed_factor:g} either way"
        )
    else:
        yield "rates: measured by earlier stages of this store"
    yield (
        f"beside training: {costs.worker_start_s:g} s to start a worker, {costs.starting_at_once} at a time, "
        f"{costs.stage_start_s + costs.stage_setup_s:g} s to start a stage, {1000 * costs.driver_s:g} ms of the driver"
    )
    if found.num_draws > 1:
        yield f"medians of {found.num_draws} draws; in brackets the 5th to 95th percentile"
    if any(kind.spot for size in found.sizes for kind in size.cluster.kinds) and found.spot.losses_per_node_h:
        lost = "stages save in time" if found.spot.gives_notice else "the epoch in flight is lost"
        yield (
            f"spot nodes: {found.spot.losses_per_node_h:g} losses per node and hour, another node after "
            f"{found.spot.returns_after_s:g} s; {lost}"
        )
    if found.contention is not None:
        yield (
            f"contention {found.contention:g}: each further fine-tuning on a GPU slows all that share it by so much of "
            "what one alone takes; whether their memory suffices is not looked at"
        )
    if found.runs_less:
        yield "the study may stop stages early or do without some; here all of them run to their end"


def _between(found: Range, form: Any) -> str:
    middle, low, high = form(found.median), form(found.low), form(found.high)
    return middle if low == high else f"{middle} ({low} to {high})"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 3600 * 999.5 else f"{seconds / 3600:,.0f} h"


def _amount(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
