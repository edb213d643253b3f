"""Reading the CSV and TSV tables, lists and settings that data sets come with."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from raysweep.data.pack_format import UNCERTAIN
from raysweep.errors import PackError, did_you_mean

Row = Mapping[str, str]


def read_table(path: Path, columns: Sequence[str] = (), delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a table with a header, one at a time; names and values without the white space around them.

    Args:
        path: The table.
        columns: Columns that must be there.
        delimiter: What separates columns.

    Raises:
        PackError: if the file is missing, a column is, or a row has another number of columns than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _rows(path, csv.reader(stream, delimiter=delimiter), columns)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PackError(f"{path} cannot be read as a table: {error}") from error


def _rows(path: Path, lines: Iterator[list[str]], columns: Sequence[str]) -> Iterator[Row]:
    header = [name.strip() for name in next(lines, [])]
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(name for name in header if name) or "none"
        raise PackError(f"{path} has no column {missing[0]!r}.{did_you_mean(missing[0], header)} It has {found}.")
    for number, values in enumerate(lines, start=2):
        if values and len(values) != len(header):
            raise PackError(f"{path}, line {number}, has {len(values)} columns; its header has {len(header)}")
        if values:
            yield {name: value.strip() for name, value in zip(header, values, strict=True)}


def read_text(path: Path) -> str:
    """Return a text file's content.

    Raises:
        PackError: if it is missing or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"{path} cannot be read as text: {error}") from error


def _missing(path: Path) -> PackError:
    return PackError(f"{path} does not exist; the packer needs it")


def label(path: Path, name: str, text: str) -> float:
    """Return a label from a table's cell: 1, 0, -1 for uncertain, or NaN where the cell is empty.

    Raises:
        PackError: if the cell holds anything else.
    """
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isnan(value) or value in (0.0, 1.0, UNCERTAIN):
        return value
    raise PackError(f"{path} has {text!r} in column {name!r}; allowed are 1, 0, -1 for uncertain, and nothing")


def one_hot(value: str | None, names: Sequence[str]) -> tuple[float, ...]:
    """Return a one-hot vector, or NaN throughout where the value is None."""
    if value is None:
        return (math.nan,) * len(names)
    return tuple(float(name == value) for name in names)


def find_one(source: Path, *patterns: str) -> Path:
    """Return the one file or folder below a folder that matches one of the patterns, the first pattern first.

    Raises:
        PackError: if there is none, or more than one.
    """
    for pattern in patterns:
        found = sorted(source.rglob(pattern))
        if len(found) > 1:
            raise PackError(f"{found[0]} and {found[1]} both look like {pattern}: name a folder that holds one")
        if found:
            return found[0]
    raise PackError(f"{source} holds no {' and no '.join(patterns)}, in whatever sub-folder; the packer needs it")
