"""What stages said: the log lines of their attempts, with the failures that only the driver saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from raysweep.errors import StoreError, did_you_mean
from raysweep.results.read import read_cells
from raysweep.store import FailureRecord, Store

Line = dict[str, Any]
_NOT_FACTS = (
    "at",
    "level",
    "logger",
    "message",
    "host",
    "pid",
    "stage",
    "name",
    "kind",
    "attempt",
    "cells",
    "num_cells",
)
_SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class Attempt:
    """One attempt of a stage that has said something, counted over all launches from 1."""

    number: int
    path: str


def find_stage(store: Store, wanted: str) -> str:
    """Return the id of a stage that is given by its id, the beginning of it, or its name.

    Raises:
        StoreError: if there is none, or more than one.
    """
    known = {PurePosixPath(path).parent.name for folder in ("logs", "failures") for path in store.list(folder)}
    known |= {PurePosixPath(path).stem for path in store.list("ledger")}
    if wanted in known:
        return wanted
    names = _stages_by_name(store, known)
    found = names.get(wanted) or {
        stage for stage in known if len(wanted) >= _SHORTEST_PREFIX and stage.startswith(wanted)
    }
    if len(found) == 1:
        return next(iter(found))
    if found:
        several = ", ".join(sorted(stage[:12] for stage in found))
        raise StoreError(f"{wanted!r} means {len(found)} stages of store {store.uri}: {several}; give more of the id")
    raise StoreError(
        f"store {store.uri} has no log of a stage {wanted!r}.{did_you_mean(wanted, [*names, *known])} Allowed: the id "
        "that the table stages has, at least four characters of its beginning, or the name of a cell"
    )


def _stages_by_name(store: Store, known: set[str]) -> dict[str, set[str]]:
    """Return the stages that there is something of by name: of cells, and of logs whose stage is no cell's."""
    names: dict[str, set[str]] = {}
    of_cells = set()
    for cell in read_cells(store).select(["cell", "stage"]).to_pylist():
        if cell["stage"] in known:
            names.setdefault(cell["cell"], set()).add(cell["stage"])
            of_cells.add(cell["stage"])
    for stage in known - of_cells:
        for attempt in attempts(store, stage)[:1]:
            for line in _lines(store, attempt)[:1]:
                names.setdefault(str(line.get("name")), set()).add(stage)
    return names


def attempts(store: Store, stage: str) -> list[Attempt]:
    """Return the attempts of a stage that have said something, the first one first."""
    return [Attempt(number, path) for number, path in enumerate(store.list(f"logs/{stage}"), start=1)]


def read_log(store: Store, stage: str, number: int | None = None) -> list[Line]:
    """Return the lines of an attempt, by default of the last one, with what the driver recorded of its failure.

    Raises:
        StoreError: if there is no such attempt.
    """
    there = attempts(store, stage)
    if number is not None and not 1 <= number <= len(there):
        allowed = f"1 to {len(there)}" if there else "none: it has not begun"
        raise StoreError(f"stage {stage[:12]} has no attempt {number}; allowed: {allowed}")
    index = len(there) - 1 if number is None else number - 1
    lines = _lines(store, there[index]) if there else []
    begin = _begin(lines) if index > 0 else ""
    end = _begin(_lines(store, there[index + 1])) if index + 1 < len(there) else "~"
    attempt = lines[0].get("attempt") if lines else None
    has_told = any(line.get("level") == "ERROR" for line in lines)
    for failure in store.failures({stage}):
        is_its = failure.attempt == attempt or (end == "~" and failure.attempt > (attempt or 0))
        if begin <= failure.at[:19] <= end and is_its and not (has_told and failure.attempt == attempt):
            lines.append(_of_failure(failure))
    return sorted(lines, key=lambda line: str(line.get("at", "")))


def _of_failure(failure: FailureRecord) -> Line:
    """Return what the driver recorded of an attempt as a line."""
    line = {"at": failure.at, "level": "ERROR", "message": f"{failure.kind}: {failure.reason}", "host": failure.host}
    traceback = {"traceback": failure.traceback} if failure.traceback else {}
    return {**line, "stage": failure.stage, "attempt": failure.attempt, **traceback}


def as_text(line: Line) -> str:
    """Return a line as people read it: time, level, message, facts; a traceback below it."""
    facts = {key: value for key, value in line.items() if key not in (*_NOT_FACTS, "traceback", "metrics", "epoch")}
    facts |= line.get("metrics") or {}
    shown = " ".join(f"{key}={_short(value)}" for key, value in facts.items() if value not in (None, "", []))
    level = "" if line.get("level") == "INFO" else f"{line.get('level')} "
    text = f"{str(line.get('at', ''))[:19]} {level}{line.get('message', '')} {shown}".rstrip()
    return f"{text}\n{line['traceback']}".rstrip() if line.get("traceback") else text


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _begin(lines: list[Line]) -> str:
    """Return when an attempt began, to the second, as failures are dated."""
    return str(lines[0].get("at", ""))[:19] if lines else ""


def _lines(store: Store, attempt: Attempt) -> list[Line]:
    return list(_parsed((store.read_bytes(attempt.path) or b"").decode(errors="replace")))


def _parsed(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = {"message": line}  # what is no line of ours is shown as it is
        yield value if isinstance(value, dict) else {"message": line}
