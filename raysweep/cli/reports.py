"""Commands that show a study's answers: report, serve."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysweep.cli._app import EXIT_INTERRUPTED, SetOption, StoreOption, StudyFile, app
from raysweep.errors import StudyError

if TYPE_CHECKING:
    from raysweep.store import Store
    from raysweep.study import Study


class ReportFormat(StrEnum):
    """What a report is written as."""

    html = "html"
    md = "md"
    tex = "tex"
    csv = "csv"
    svg = "svg"
    pdf = "pdf"
    png = "png"


@app.command(epilog="Example: raysweep report search_spaces/quickstart.yaml --out report")
def report(
    study: StudyFile,
    store: StoreOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files. Default: in the store.")] = None,
    set_: SetOption = None,
    formats: Annotated[
        list[ReportFormat] | None,
        typer.Option("--format", help="html: the page; md, tex, csv: tables; svg, pdf, png: figures; repeatable."),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Only print the answers here, in 30 lines.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page anew while the study runs; needs --out.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How often --watch looks.")] = 30,
) -> None:
    """Write the report of a study: one HTML page that needs no network, and a summary here."""
    from raysweep.study import load_study
    from raysweep.sweep import open_store
    from raysweep.sweep import report as make_report
    from raysweep.terminal import show

    loaded, opened = load_study(study, set_ or []), open_store(store)
    if text:
        from raysweep.report import study_facts, terminal_summary

        tables = opened.study(loaded.study)
        show(terminal_summary(tables, study_facts(loaded, tables)))
        return
    if watch:
        if out is None:
            raise StudyError("--watch needs --out FOLDER: the folder whose index.html a browser shows")
        show(f"writing {out / 'index.html'} every {every} s when results change; Ctrl-C ends it")
        _watch(loaded, opened, out, every)
        return
    made = make_report(loaded, store=opened, out=out, formats=[kind.value for kind in formats or [ReportFormat.html]])
    show(made.summary)
    for path in made.files:
        show(f"report: {path}" if path.endswith(".html") else path)


def _watch(study: Study, store: Store, out: Path, every: int) -> None:
    from raysweep.report.watch import watch
    from raysweep.terminal import show

    try:
        for made in watch(study, store, out, every):
            if made is not None:
                show(made.summary)
                show(f"the study has ended; report: {made.page}")
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


@app.command(epilog="Example: raysweep serve search_spaces/quickstart.yaml --port 8000")
def serve(
    study: StudyFile,
    store: StoreOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reachable from here alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    refresh: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How often the page loads itself anew.")] = 10,
    set_: SetOption = None,
) -> None:
    """Serve the report of a study while it runs: the page follows the store, and nothing is written."""
    from raysweep.report.files import live_page
    from raysweep.report.serve import LivePage, make_server
    from raysweep.study import load_study
    from raysweep.sweep import open_store
    from raysweep.terminal import show

    loaded, opened = load_study(study, set_ or []), open_store(store)
    page = LivePage(opened, loaded.study, lambda: live_page(loaded, opened, refresh), max_age_s=refresh)
    with make_server(page, host, port) as server:
        show(f"serving {loaded.study} at http://{host}:{server.server_address[1]}/; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
