"""Writing a report: the page, and tables and figures for a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from rich.console import RenderableType

from raysweep.errors import StoreError, did_you_mean
from raysweep.report import figures, paper_tables
from raysweep.report.facts import StudyFacts, study_facts
from raysweep.report.findings import find
from raysweep.report.live import in_flight
from raysweep.report.page import all_panels, build_report
from raysweep.report.run_tables import run_tables
from raysweep.report.terminal import terminal_summary
from raysweep.results.examples import read_examples
from raysweep.results.read import StudyTables, stages_of, study_tables
from raysweep.store import Store
from raysweep.study import Study

Format = Literal["html", "md", "tex", "csv", "svg", "pdf", "png"]


@dataclass(frozen=True)
class ReportFiles:
    """A written report."""

    files: tuple[str, ...]
    """Where the files are: the page, then tables and figures."""
    summary: RenderableType
    """The answers for the terminal."""

    @property
    def page(self) -> str:
        """Where the page is, or else the first file."""
        return self.files[0]


def write_files(
    study: Study, store: Store, out: Path | None = None, formats: Sequence[Format] = ("html",)
) -> ReportFiles:
    """Write a study's report in some formats into a folder, or else into the store.

    ``html`` is the page; ``md``, ``tex`` and ``csv`` are tables, below ``tables``; ``svg``, ``pdf`` and ``png`` are
    figures, below ``figures``.

    Raises:
        StoreError: if the store has no such study, or there is no such format.
    """
    known = get_args(Format)
    for kind in formats:
        if kind not in known:
            raise StoreError(f"no format {kind!r}.{did_you_mean(kind, known)} Formats: {', '.join(known)}.")
    tables = study_tables(store, study.study)
    written = [_write(store, study.study, out, *file) for file in _contents(study, store, tables, formats)]
    return ReportFiles(tuple(written), terminal_summary(tables, _facts(study, store, tables)))


def live_page(study: Study, store: Store, refresh_s: int) -> str:
    """Return the page as it is now, which says what is running and loads itself anew.

    Raises:
        StoreError: if the store does not have the study yet.
    """
    tables = study_tables(store, study.study)
    running = in_flight(store, tables, refresh_s)
    return build_report(
        tables,
        partial(read_examples, store),
        _facts(study, store, tables),
        running,
    )


def _contents(
    study: Study, store: Store, tables: StudyTables, formats: Sequence[Format]
) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file."""
    findings = find(tables)
    if "html" in formats:
        page = build_report(tables, partial(read_examples, store), _facts(study, store, tables))
        yield "index.html", page.encode()
    for kind, render in (("md", paper_tables.to_markdown), ("tex", paper_tables.to_latex)):
        if kind in formats:
            of_runs = run_tables(findings) if study.statistics == "taher2021" else []
            for table in [*paper_tables.paper_tables(findings, tables), *of_runs]:
                yield f"tables/{table.name}.{kind}", render(table).encode()
    if "csv" in formats:
        for name, text in paper_tables.csv_tables(findings).items():
            yield f"tables/{name}.csv", text.encode()
    for drawn in ("svg", "pdf", "png"):
        if drawn in formats:
            for name, data in figures.figures(all_panels(findings, tables), drawn):
                yield f"figures/{name}.{drawn}", data


def _facts(study: Study, store: Store, tables: StudyTables) -> StudyFacts:
    return study_facts(study, tables, store.failures(stages_of(tables.cells)))


def _write(store: Store, study: str, out: Path | None, path: str, data: bytes) -> str:
    """Write one file, replacing an older one, and return where it is."""
    if out is None:
        store.write_bytes(f"reports/{study}/{path}", data)
        return f"{store.uri}/reports/{study}/{path}"
    publish(out / path, data)
    return str(out / path)


def publish(target: Path, data: bytes) -> None:
    """Write a file in one piece, replacing an older one: a browser that loads it sees the old or the new."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(target)
