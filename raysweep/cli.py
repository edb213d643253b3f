"""The command line: each command calls one function. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from raysweep._version import __version__
from raysweep.errors import RaysweepError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="raysweep",
    help="Which pretraining, how many epochs of it, and how many annotated images? Run the grid, get the answer.",
    epilog="Exit codes: 0 fine, 1 some stages failed, 2 wrong use. Start: raysweep run search_spaces/quickstart.yaml",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ExecutorChoice(StrEnum):
    """Where stages run."""

    tune = "tune"
    inline = "inline"


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Listed(StrEnum):
    """What can be listed."""

    methods = "methods"
    datasets = "datasets"
    tasks = "tasks"
    sources = "sources"
    studies = "studies"


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).", show_default=False)]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="Folder or URI of the store. Default: $RAYSWEEP_STORE, or raysweep-store here.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study, the value being YAML; repeatable."),
]


@app.callback(invoke_without_command=True)
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: raysweep pack acdc ~/ACDC/database --out packs/acdc.h5")
def pack(
    dataset: Annotated[str, typer.Argument(help="Packer; see `raysweep list datasets`.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder of the data set's files; synthetic sets need none.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Pack to write.", show_default=False)] = ...,  # type: ignore[assignment]
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="Option of the packer; repeatable.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read files. Default: all cores for large sets.")
    ] = None,
) -> None:
    """Pack a data set into one file of slices that training reads without copying."""
    from rich.console import Console
    from rich.progress import Progress

    from raysweep.data.inspect import describe
    from raysweep.data.pack import open_pack
    from raysweep.datasets import build_pack
    from raysweep.terminal import show

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"packing {dataset}", total=None)
        build_pack(
            dataset,
            source,
            out,
            _options(option or []),
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    facts = describe(open_pack(out))
    show(f"wrote {out}: {facts['slices']} slices, {facts['annotated_slices']} annotated, {facts['digest']}")


@app.command(epilog="Example: raysweep inspect packs/acdc.h5 --sheet acdc.png")
def inspect(
    file: Annotated[Path, typer.Argument(help="Pack.", show_default=False)],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Write a contact sheet of slices with masks (PNG).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show what is in a pack, and verify its digest."""
    from raysweep.data.inspect import contact_sheet, describe
    from raysweep.data.pack import Pack
    from raysweep.terminal import pairs_table, show

    opened = Pack.open(file)
    opened.verify()
    facts = describe(opened)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        show(pairs_table({name.replace("_", " "): value for name, value in facts.items()}))
        show("digest verified")
    if sheet is not None:
        contact_sheet(opened, sheet)
        show(f"wrote {sheet}")


@app.command(epilog="Example: raysweep plan search_spaces/quickstart.yaml --set grid.seed=[0]")
def plan(
    study: StudyFile,
    store: StoreOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary, stages and cells as JSON.")] = False,
) -> None:
    """Show the cells and stages of a study, what is done, what it takes, and what sharing saves. Nothing is trained."""
    from raysweep.planning.cost import estimate
    from raysweep.planning.summary import plan_json, render_plan
    from raysweep.results.complete import complete_ledger
    from raysweep.results.rates import measured_rates
    from raysweep.sweep import open_store
    from raysweep.sweep import plan as make_plan
    from raysweep.terminal import show

    opened = open_store(store)
    planned = make_plan(study, store=opened, set=set_ or [])
    ledger = complete_ledger(opened)
    estimated = estimate(planned, ledger, measured_rates(opened, planned.study.resources))
    if as_json:
        typer.echo(json.dumps(plan_json(planned, ledger, estimated), indent=2))
    else:
        show(render_plan(planned, ledger, estimated))


@app.command(epilog="Example: raysweep run search_spaces/quickstart.yaml --store results --set grid.seed=[0,1,2]")
def run(
    study: StudyFile,
    store: StoreOption = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Ray cluster to run on. Default: Ray starts on this machine.")
    ] = None,
    executor: Annotated[
        ExecutorChoice, typer.Option(help="tune: Ray Tune; inline: this process, without Ray.")
    ] = ExecutorChoice.tune,
    set_: SetOption = None,
    retry_failed: Annotated[bool, typer.Option(help="Try stages again that failed in an earlier launch.")] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="Also log metrics to tensorboard, mlflow or wandb; repeatable."),
    ] = None,
    report_: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the report when stages have run.")
    ] = True,
) -> None:
    """Run what is left of a study, then write its report. Launch again after any interruption: it continues."""
    from raysweep.sweep import report as make_report
    from raysweep.sweep import run as run_study
    from raysweep.terminal import show

    try:
        launched = run_study(
            study,
            store=store,
            executor=executor.value,
            address=address,
            retry_failed=retry_failed,
            track=track or [],
            set=set_ or [],
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command continues where it stopped", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    outcome, name = launched.outcome, launched.plan.study.study
    if outcome.done == 0 and outcome.is_complete:
        show(f"nothing to do: all {len(launched.plan.stages)} stages of {name} are done")
    else:
        show(f"{outcome.done} stages run in {outcome.wall_s:.0f} s")
    for kind, reasons in (("failed", outcome.failed), ("skipped", outcome.skipped)):
        for stage, reason in reasons.items():
            typer.echo(f"{kind} {stage}: {reason}", err=True)
    if report_:
        made = make_report(launched.plan.study, store=launched.store)
        show(made.summary)
        show(f"report: {made.page}")
    if not outcome.is_complete:
        typer.echo("some stages failed; the others are done. `raysweep run --retry-failed` tries them again.", err=True)
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog="Example: raysweep status search_spaces/quickstart.yaml")
def status(study: StudyFile, store: StoreOption = None, set_: SetOption = None) -> None:
    """Show how far a study is: stages done, failed and open, and why stages failed."""
    from rich.console import Group
    from rich.text import Text

    from raysweep.planning.summary import summarise
    from raysweep.results.complete import complete_ledger
    from raysweep.sweep import open_store
    from raysweep.sweep import plan as make_plan
    from raysweep.terminal import show

    opened = open_store(store)
    planned = make_plan(study, store=opened, set=set_ or [])
    ledger = complete_ledger(opened)
    counts = summarise(planned, ledger)
    open_stages = counts.num_stages - counts.num_done - counts.num_failed
    lines = [
        f"{counts.study}: {counts.num_done} of {counts.num_stages} stages done, {counts.num_failed} failed, "
        f"{open_stages} open ({counts.num_cells} cells)"
    ]
    lines += [
        f"failed {stage.name} (attempt {record.attempt} on {record.host or 'no node'}): {record.error}"
        for stage in planned.stages.values()
        if (record := ledger.get(stage.id)) is not None and record.status == "failed"
    ]
    show(Group(*(Text(line) for line in lines)))
    if counts.num_failed:
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog="Example: raysweep report search_spaces/quickstart.yaml --out report")
def report(
    study: StudyFile,
    store: StoreOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the page. Default: in the store.")] = None,
    set_: SetOption = None,
) -> None:
    """Write the report of a study: one HTML page that needs no network, and a summary here."""
    from raysweep.study import load_study
    from raysweep.sweep import report as make_report
    from raysweep.terminal import show

    made = make_report(load_study(study, set_ or []), store=store, out=out)
    show(made.summary)
    show(f"report: {made.page}")


@app.command(
    epilog="Example: raysweep query 'SELECT source, annotations, avg(test_score) FROM trials GROUP BY ALL ORDER BY ALL'"
)
def query(
    sql: Annotated[
        str, typer.Argument(help="One SELECT over the store's tables and views (DuckDB).", show_default=False)
    ],
    store: StoreOption = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print the answer.")] = TableFormat.table,
) -> None:
    """Ask the store's tables in SQL: cells, stages, epochs, cases, snapshots; views trials and curves."""
    from raysweep.sweep import open_store
    from raysweep.terminal import write_table

    answer = open_store(store).query(sql)
    write_table(answer, format_.value)


@app.command("list", epilog="Example: raysweep list methods")
def list_(what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)]) -> None:
    """List methods, data sets, tasks, kinds of sources, or the studies of ./search_spaces."""
    from raysweep import registry
    from raysweep.terminal import methods_table, pairs_table, show

    if what is Listed.methods:
        show(methods_table())
        return
    if what in (Listed.datasets, Listed.tasks):
        rows = registry.describe(what.value)
    elif what is Listed.sources:
        rows = {
            "random": "random weights",
            "{weights: NAME.TAG}": "weights of timm by name and tag, fetched once into the store",
            "{weights: FILE}": "a state dict (.pt, .pth, .th) or .safetensors file",
            "{pretrain: {pack: NAME, ...}}": "a pretraining stage; steps of a source are a list, first to last",
        }
    else:
        from raysweep.study import describe_studies

        rows = describe_studies(Path("search_spaces"))
    show(pairs_table(rows))


@app.command(epilog="Example: raysweep schema > study.schema.json")
def schema() -> None:
    """Print the JSON Schema of study files, for editors and validators."""
    from raysweep.study import study_schema

    typer.echo(json.dumps(study_schema(), indent=2))


def main() -> NoReturn:
    """Run the command line; errors raysweep raises on purpose become one message and exit code 2."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("raysweep").setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except RaysweepError as error:
        typer.echo(f"raysweep: {error}", err=True)
        sys.exit(EXIT_USAGE)
    sys.exit(0)


def _options(texts: list[str]) -> dict[str, Any]:
    import yaml

    options: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise RaysweepError(f"option {text!r} is not of the form key=value, such as seed=1")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RaysweepError(f"option {key}: {value!r} is not valid YAML: {error}") from error
    return options
