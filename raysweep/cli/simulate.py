"""The command that forecasts a study on clusters of several sizes."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysweep.cli._app import SetOption, StoreOption, StudyFile, app

if TYPE_CHECKING:
    from raysweep.planning import Plan
    from raysweep.planning.cost import Rates
    from raysweep.simulation import Advice, Forecast


class ForecastFormat(StrEnum):
    """How a forecast is printed."""

    text = "text"
    json = "json"
    csv = "csv"


@app.command(epilog="Example: raysweep simulate search_spaces/quickstart.yaml --cpus 2,4,16")
def simulate(
    study: StudyFile,
    gpus: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Cluster sizes in GPUs. Default: powers of two.")
    ] = None,
    cpus: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Cluster sizes in cores, for a study that asks for no GPU.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="Cores of a node. Default: enough for its GPUs; 16 without GPUs.")
    ] = None,
    nodes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clusters of several kinds of node (YAML), beside the others.")
    ] = None,
    spot_rate: Annotated[
        float | None, typer.Option(min=0, metavar="R", help="Take nodes away R times per node and hour, and others.")
    ] = None,
    returns_after_s: Annotated[float, typer.Option(min=0, help="Seconds until a lost node is replaced.")] = 300.0,
    notice: Annotated[
        bool, typer.Option("--notice", help="Nodes are lost with notice: stages save, and the epoch is not lost.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prices of a GPU-hour and a core-hour (YAML).")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(metavar="X,X,...", help="Compare GPU shares of a fine-tuning, such as 1,0.5,0.25.")
    ] = None,
    contention: Annotated[
        float, typer.Option(min=0, help="With --shares: slow-down by each further fine-tuning on the same GPU.")
    ] = 0.5,
    deadline_h: Annotated[float | None, typer.Option(help="Recommend what ends within so many hours.")] = None,
    min_utilisation: Annotated[
        float | None, typer.Option(min=0, max=1, help="Recommend the fastest that is used so well. Default: 0.8.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="As if nothing were done; default: what is left.")] = False,
    draws: Annotated[int | None, typer.Option(min=1, help="Draws of what is uncertain. Default: 3 to 20.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    format_: Annotated[ForecastFormat, typer.Option("--format", help="How to print it.")] = ForecastFormat.text,
    store: StoreOption = None,
    set_: SetOption = None,
) -> None:
    """Forecast makespan, utilisation and cost of a study on clusters of several sizes, and recommend one of them.

    The engine's own queue is played in simulated time, with rates that the store has measured, else assumed ones.
    """
    from raysweep.results.complete import complete_ledger
    from raysweep.results.rates import measured_rates
    from raysweep.simulation import Prices, Spot, forecast, recommend
    from raysweep.simulation.shares import forecast_shares
    from raysweep.simulation.sizes import clusters_of
    from raysweep.study.load import load_settings
    from raysweep.sweep import open_store
    from raysweep.sweep import plan as make_plan

    opened = open_store(store)
    planned = make_plan(study, store=opened, set=set_ or [])
    rates = measured_rates(opened, planned.study.resources)
    ledger = {} if fresh else complete_ledger(opened)
    priced = None if prices is None else load_settings(prices, Prices, "price file")

    def forecast_of(changed: Plan, slowed: Rates) -> Forecast:
        clusters = clusters_of(
            changed,
            slowed,
            gpus=gpus,
            cpus=cpus,
            gpus_per_node=gpus_per_node,
            cpus_per_node=cpus_per_node,
            file=nodes,
            spot=spot_rate is not None,
        )
        spot = Spot(spot_rate or 0.0, returns_after_s, notice)
        return forecast(changed, ledger, slowed, clusters, prices=priced, spot=spot, seed=seed, draws=draws)

    if shares is None:
        found = forecast_of(planned, rates)
    else:
        found = forecast_shares(planned, rates, shares, contention, forecast_of)
    _print(found, recommend(found, deadline_h=deadline_h, min_utilisation=min_utilisation), format_)


def _print(found: Forecast, advice: Advice, format_: ForecastFormat) -> None:
    from raysweep.simulation.render import forecast_json, forecast_rows, render_forecast
    from raysweep.terminal import show, write_table

    if format_ is ForecastFormat.json:
        typer.echo(json.dumps(forecast_json(found, advice), indent=2))
    elif format_ is ForecastFormat.csv:
        import pyarrow as pa

        write_table(pa.Table.from_pylist(forecast_rows(found)), "csv")
    else:
        show(render_forecast(found, advice))
