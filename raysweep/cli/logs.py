"""The command that shows what stages said."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from raysweep.cli._app import EXIT_INTERRUPTED, StoreOption, app

if TYPE_CHECKING:
    from raysweep.store import Store

_POLL_S = 2.0


@app.command(epilog="Example: raysweep logs heart/small/random/n4/s0 --follow")
def logs(
    stage: Annotated[
        str, typer.Argument(help="Id of a stage, the beginning of it, or the name of a cell.", show_default=False)
    ],
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Attempt, counted over all launches. Default: the last.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the stage has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as JSON.")] = False,
    store: StoreOption = None,
) -> None:
    """Show what a stage said: its epochs, warnings, and why it failed; whatever executor and node it ran on."""
    from raysweep.report.logs import find_stage
    from raysweep.sweep import open_store

    opened = open_store(store)
    found = find_stage(opened, stage)
    shown = _show(opened, found, attempt, 0, as_json)
    try:
        while follow and opened.ledger_record(found) is None:
            time.sleep(_POLL_S)
            shown = _show(opened, found, attempt, shown, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if follow:
        _show(opened, found, attempt, shown, as_json)


def _show(store: Store, stage: str, attempt: int | None, shown: int, as_json: bool) -> int:
    """Print the lines after those that have been shown, and return how many there are now."""
    from raysweep.report.logs import as_text, read_log

    lines = read_log(store, stage, attempt)
    for line in lines[shown if len(lines) >= shown else 0 :]:  # a new attempt begins anew
        typer.echo(json.dumps(line) if as_json else as_text(line))
    return len(lines)
