"""Commands about tables and names: query, compact, list, schema."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from raysweep.cli._app import StoreOption, app


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
    tuning = "tuning"
    protocols = "protocols"
    sources = "sources"
    studies = "studies"


@app.command(
    epilog="Example: raysweep query 'SELECT source, annotations, avg(test_score) FROM trials GROUP BY ALL ORDER BY ALL'"
)
def query(
    sql: Annotated[
        str, typer.Argument(help="One SELECT over the store's tables and views (DuckDB).", show_default=False)
    ],
    store: StoreOption = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print the answer.")] = TableFormat.table,
    study: Annotated[str | None, typer.Option(help="Read only what this study needs.", show_default=False)] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Read only what this source of the study needs; repeatable.")
    ] = None,
) -> None:
    """Ask the store's tables in SQL: cells, stages, epochs, cases, snapshots; views trials and curves."""
    from raysweep.sweep import open_store
    from raysweep.terminal import write_table

    answer = open_store(store).query(sql, study, source or None)
    write_table(answer, format_.value)


@app.command(epilog="Example: raysweep compact --store raysweep-store")
def compact(store: StoreOption = None) -> None:
    """Merge the result files of stages that are done into few large ones; runs and readers may go on meanwhile."""
    from raysweep.sweep import open_store
    from raysweep.terminal import show

    opened = open_store(store)
    opened.prepare()
    done = opened.compact()
    if done.num_rows_merged:
        show(f"merged {done.num_rows_merged} rows: {done.num_files_before} files are now {done.num_files_after}")
    else:
        show(f"nothing to merge: {done.num_files_after} files")


@app.command("list", epilog="Example: raysweep list methods")
def list_(what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)]) -> None:
    """List methods, data sets, tasks, modes of tuning, kinds of sources, or the studies of ./search_spaces."""
    from raysweep import registry
    from raysweep.terminal import methods_table, pairs_table, show

    if what is Listed.methods:
        show(methods_table())
        return
    if what in (Listed.datasets, Listed.tasks, Listed.tuning, Listed.protocols):
        rows = registry.describe(what.value)
    elif what is Listed.sources:
        rows = {
            "random": "random weights",
            "{weights: NAME}": "published weights that `raysweep weights list` names, fetched once into the store",
            "{weights: NAME.TAG}": "weights of timm by name and tag, fetched once into the store",
            "{weights: FILE}": "a checkpoint: PyTorch, safetensors, TensorFlow, a pickle of arrays",
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
