"""Commands about weights: what is published, what the store has, getting and checking it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysweep.cli._app import EXIT_FAILED, StoreOption, app
from raysweep.errors import RaysweepError, WeightsError

if TYPE_CHECKING:
    from raysweep.store import Store
    from raysweep.zoo import Published

group = typer.Typer(
    name="weights",
    help="List, fetch, check and import the weights that sources start from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group)

Name = Annotated[str, typer.Argument(help="Name that `weights list` shows, or a timm name.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@group.command("list", epilog="Example: raysweep weights list --study taher-2021")
def list_(
    store: StoreOption = None,
    study: Annotated[
        str | None, typer.Option(help="Only those that a published study compares, such as kalapos-2022.")
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Only those that the store has.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List published weights by name, and which of them the store has."""
    from raysweep import zoo
    from raysweep.sources.stored import stored_names
    from raysweep.sweep import open_store
    from raysweep.terminal import rows_table, show

    there = set(stored_names(open_store(store)))
    studies = sorted({name for entry in zoo.weights().values() for name in entry.studies})
    if study is not None and study not in studies:
        raise WeightsError(f"no weights belong to the study {study!r}; allowed: {', '.join(studies)}")
    entries = [entry for entry in zoo.weights().values() if study is None or study in entry.studies]
    rows = [_row(entry, there) for entry in entries]
    named = {name for entry in zoo.weights().values() for name in (entry.name, entry.timm)}
    rows += [_own_row(name) for name in sorted(there - named)] if study is None else []
    rows = [row for row in rows if row["state"] == "here" or not here]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        show(rows_table(rows))


def _row(entry: Published, there: set[str]) -> dict[str, str]:
    is_here = entry.name in there or entry.timm in there
    state = "here" if is_here else "to fetch" if entry.is_downloadable else "to get by hand"
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "objective": entry.objective,
        "dataset": entry.dataset,
        "state": state,
    }


def _own_row(name: str) -> dict[str, str]:
    return {"name": name, "architecture": name.split(".")[0], "objective": "", "dataset": "", "state": "here"}


@group.command(epilog="Example: raysweep weights show moco-v2")
def show(name: Name, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show everything known of published weights, and what the store has of them."""
    from raysweep import zoo
    from raysweep.sources.stored import read_record
    from raysweep.sweep import open_store
    from raysweep.terminal import pairs_table
    from raysweep.terminal import show as print_

    entry = zoo.find(name)
    record = read_record(open_store(store), entry.timm or name)
    facts: dict[str, Any] = {**asdict(entry), "stored": None if record is None else asdict(record)}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    if facts["stored"] is None:
        facts["stored"] = f"no; {_how_to_get(entry)}"
    if entry.urls:
        facts = {
            **facts,
            **{key: facts[key] or "recorded when it is first fetched" for key in ("size_bytes", "sha256")},
        }
    told = {key: value for key, value in facts.items() if value not in (None, "", ())}
    print_(pairs_table({key.replace("_", " "): _text(value) for key, value in told.items()}))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return "\n".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _how_to_get(entry: Published) -> str:
    if entry.is_downloadable:
        return f"raysweep weights fetch {entry.name}"
    return f"{entry.click_through}, then: raysweep weights import FILE --as {entry.name}"


@group.command(epilog="Example: raysweep weights fetch moco-v2 byol --store /shared/store")
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names that `weights list` shows, or timm names.")],
    store: StoreOption = None,
) -> None:
    """Download weights into the store, where stages find them without a network; a cut-off download is continued."""
    from raysweep.sources.library import ensure_weights
    from raysweep.sources.stored import read_record
    from raysweep.terminal import show as print_

    opened = _prepared(store)
    for name in names:
        with _progress(name) as update:
            ensure_weights(opened, name, progress=update)
        record = read_record(opened, name)
        print_(f"{name}: {record.num_tensors} tensors, {record.digest}" if record else f"{name}: in the store")


@group.command("import", epilog="Example: raysweep weights import ~/InsDis.pth --as insdis")
def import_(
    files: Annotated[
        list[Path], typer.Argument(help="The published file; index and data files of a TensorFlow checkpoint.")
    ],
    name: Annotated[str, typer.Option("--as", help="Name in the zoo, or timm name with its tag.", show_default=False)],
    store: StoreOption = None,
) -> None:
    """Bring a file that you have into the store under the name that studies use."""
    from raysweep import zoo
    from raysweep.sources.library import import_published, import_timm
    from raysweep.terminal import show as print_

    if missing := [file for file in files if not file.exists()]:
        raise WeightsError(f"weights file {missing[0]} does not exist")
    opened = _prepared(store)
    timm_name = name if "." in name else zoo.find(name).timm
    if timm_name is not None:
        record = import_timm(opened, timm_name, files[0])
    else:
        record = import_published(opened, zoo.find(name), files, origin=str(files[0].absolute()))
    print_(
        f"{name}: {record.num_tensors} tensors of {record.architecture} in the store, {record.dropped} left out, "
        f"{record.digest}"
    )


@group.command(epilog="Example: raysweep weights check ~/encoder.pth --encoder resnet50 --channels 1")
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names in the store, or files. Default: all that the store has.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="timm architecture to hold a file against.", show_default=False)
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Input channels of the encoder.")] = 3,
    prefix: Annotated[
        str | None, typer.Option(help="What stands before the encoder's keys. Default: found.", show_default=False)
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load weights into their architecture and account for every key; nothing is changed."""
    from raysweep.sources.checks import check_file, check_stored
    from raysweep.sources.stored import stored_names
    from raysweep.study import is_weights_file
    from raysweep.sweep import open_store

    opened = open_store(store)
    failed = False
    for name in names or stored_names(opened):
        try:
            if is_weights_file(name):
                if encoder is None:
                    raise WeightsError(f"say which architecture {name} is held against: --encoder resnet50")
                report = check_file(Path(name), encoder, channels, prefix)
            else:
                report = check_stored(opened, name, channels)
        except RaysweepError as error:
            failed = True
            typer.echo(str(error), err=True)
            continue
        typer.echo(json.dumps(report.to_json(), indent=2) if as_json else str(report))
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _prepared(store: str | None) -> Store:
    from raysweep.sweep import open_store

    return open_store(store).prepare()


def _progress(name: str) -> Any:
    """Return a context that yields a function to report bytes to, shown as a bar."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    @contextmanager
    def shown() -> Any:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return shown()
