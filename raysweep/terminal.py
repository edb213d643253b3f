"""What the command line prints: rich output for people, tables in formats for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from raysweep.errors import RaysweepError

_WIDTH_OF_A_FILE = 160
"""Columns where the output is no terminal, whose width would be taken for 80."""


def show(what: RenderableType) -> None:
    """Print text or a renderable; text is never folded, so that paths and digests can be copied."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_FILE)
    console.print(what, highlight=False, soft_wrap=isinstance(what, str))


def pairs_table(pairs: Mapping[str, Any], title: str | None = None) -> Table:
    """Return names and values as a table of two columns; text of a user is never markup."""
    table = Table(show_header=False, box=None, title=title, title_justify="left")
    for name, value in pairs.items():
        table.add_row(Text(name), Text(_lines(value)))
    return table


def methods_table() -> Table:
    """Return every pretraining method with its family, the encoders it trains, its cost and its source."""
    from raysweep import registry

    table = Table(
        box=None,
        header_style="bold",
        caption="cost: FLOPs of a step relative to supervised training on one view, the encoder's alone, derived from "
        "the default views at 224 pixels and checked by counting.\nencoder types: convolutional; transformer (plain, "
        "of patch tokens); hierarchical (Swin and other attention).",
        caption_justify="left",
    )
    for column in ("method", "family", "encoder types", "cost", "source"):
        table.add_column(column, justify="right" if column == "cost" else "left")
    for name in registry.names("methods"):
        method = registry.load("methods", name).METHOD
        types = ", ".join(sorted(method.encoder_types)) if method.is_particular() else "all"
        table.add_row(name, method.family, types, f"{method.cost:.2f}", method.paper)
    return table


def write_table(answer: pa.Table, format_: str) -> None:
    """Write an Arrow table to standard output as 'table', 'csv', 'json' or 'parquet'.

    Raises:
        RaysweepError: if Parquet would go to a terminal.
    """
    if format_ == "json":
        print(json.dumps(answer.to_pylist(), indent=2, default=str))  # noqa: T201
    elif format_ == "csv":
        import polars

        print(polars.from_arrow(_without_lists(answer)).write_csv(), end="")  # noqa: T201
    elif format_ == "parquet":
        import pyarrow.parquet as pq

        if sys.stdout.isatty():
            raise RaysweepError("Parquet is binary: redirect it to a file, as in --format parquet > answer.parquet")
        pq.write_table(answer, sys.stdout.buffer)
    else:
        show(rows_table(answer.to_pylist(), answer.column_names))


def rows_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> Table:
    """Return rows as a table; columns are those of the first row unless they are given."""
    table = Table(box=None, header_style="bold")
    for name in columns or (rows[0] if rows else ()):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _without_lists(answer: pa.Table) -> pa.Table:
    """Return a table whose lists are texts, items separated by a space, for CSV has none."""
    for position, field in enumerate(answer.schema):
        if pa.types.is_list(field.type):
            texts = [None if value is None else " ".join(map(str, value)) for value in answer[field.name].to_pylist()]
            answer = answer.set_column(position, field.name, pa.array(texts, pa.string()))
    return answer


def _lines(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_cell(inner)}" for key, inner in value.items())
    return _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
