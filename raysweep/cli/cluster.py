"""Commands about clusters: the files that start one, filled in and checked."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from raysweep.cli._app import EXIT_FAILED, app
from raysweep.cluster.options import ClusterOptions, flag, help_of

group = typer.Typer(
    name="cluster",
    help="List, fill in and check the files that start a cluster: clouds, Kubernetes, Slurm, own machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group)


@group.command("list", epilog="Example: raysweep cluster list")
def list_() -> None:
    """List the kinds of cluster files, and the options that each takes."""
    from raysweep.cluster import KINDS
    from raysweep.terminal import rows_table, show

    show(
        rows_table(
            [
                {
                    "kind": kind.name,
                    "is": kind.doc,
                    "options": " ".join(flag(name) for name in sorted(kind.options)),
                }
                for kind in KINDS.values()
            ]
        )
    )


def _render(kind: str, output: Path | None, **given: Any) -> None:
    """Fill in a cluster file; options that a kind does not take are refused."""
    from raysweep.cluster import render as fill

    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    said = {key: value for key, value in chosen.items() if value is not None and value is not False and value != ()}
    text = fill(kind, said, output)  # 0 is said too
    if output is None:
        typer.echo(text, nl=False)
        return
    from raysweep.cluster.check import check_text
    from raysweep.terminal import show

    output.write_text(text, encoding="utf-8")
    show(f"wrote {output}")
    _show_to_fill_in(check_text(text, output.name).to_fill_in)


def _parameters() -> list[inspect.Parameter]:
    """Return the parameters of ``render``: the kind, every option of a cluster file, and where to write."""
    types = get_type_hints(ClusterOptions)
    found: dict[str, Any] = {"kind": Annotated[str, typer.Argument(help="Kind; see `raysweep cluster list`.")]}
    for option in fields(ClusterOptions):
        is_list, is_flag = types[option.name] == tuple[str, ...], types[option.name] is bool
        declared = typer.Option(
            flag(option.name), help=help_of(option), metavar=None if is_flag else option.metadata["metavar"]
        )
        kind = bool if is_flag else list[str] | None if is_list else types[option.name] | None
        found[option.name] = Annotated[kind, declared]
    found["output"] = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else it is printed.")]
    defaults = {"kind": inspect.Parameter.empty, "spot": False}
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation)
        for name, annotation in found.items()
    ]


_render.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
_render.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters()}
group.command(
    "render",
    epilog="Example: raysweep cluster render kuberay-job --gpus 8 --spot --store s3://bucket/heart --output job.yaml",
)(_render)


@group.command(epilog="Example: raysweep cluster check cluster/kuberay/job.yaml")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Cluster files.", show_default=False)],
    crd: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Your operator's definitions, instead of KubeRay 1.7's; repeatable."),
    ] = None,
) -> None:
    """Hold cluster files against Ray's schema, KubeRay's definitions and raysweep's rules."""
    from raysweep.cluster.check import check_file

    failed = False
    for file in files:
        findings = check_file(file, crd or [])
        problems = findings.problems
        count = {0: "no problem", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
        typer.echo(f"{file}: {findings.kind}, {count}")
        for problem in problems:
            typer.echo(f"  {problem}", err=True)
        _show_to_fill_in(findings.to_fill_in)
        failed = failed or bool(problems)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _show_to_fill_in(placeholders: tuple[str, ...]) -> None:
    if placeholders:
        typer.echo("  still to fill in: " + "; ".join(placeholders))
