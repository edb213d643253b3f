"""Commands about packs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from raysweep.cli._app import app
from raysweep.errors import RaysweepError


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
    from raysweep.data.contact_sheet import contact_sheet
    from raysweep.data.inspect import describe
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
