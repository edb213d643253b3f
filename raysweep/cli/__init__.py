"""The command line: each command calls one function. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from raysweep.cli import (  # they add their commands, in the order of the help text
    cluster,
    data,
    export,
    logs,
    reports,
    simulate,
    studies,
    tables,
    weights,
)
from raysweep.cli._app import EXIT_USAGE, app
from raysweep.errors import RaysweepError
from raysweep.logs import configure
from raysweep.secrecy import mask

__all__ = ["app", "cluster", "data", "export", "logs", "main", "reports", "simulate", "studies", "tables", "weights"]


def main() -> NoReturn:
    """Run the command line; errors raysweep raises on purpose become one message and exit code 2."""
    try:
        configure()
        app(standalone_mode=True)
    except RaysweepError as error:
        typer.echo(f"raysweep: {mask(str(error))}", err=True)
        sys.exit(EXIT_USAGE)
    sys.exit(0)
