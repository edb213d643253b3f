"""The application that every command module adds its commands to, and the arguments they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raysweep._version import __version__

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

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file (YAML).", show_default=False)]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="Folder, or URI such as s3://bucket/prefix. Default: $RAYSWEEP_STORE, or raysweep-store here.",
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
