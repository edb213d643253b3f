"""Subjects found in file names by a regular expression."""

from __future__ import annotations

import re
from pathlib import Path

from raysweep.errors import PackError


def subject_expression(pattern: str | None) -> str | None:
    """Return a regular expression with exactly one group; for pydantic's validators.

    Raises:
        ValueError: if it is none.
    """
    if pattern is not None:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"it is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"it has {groups} groups; exactly one must enclose the subject, as in '(p[0-9]+)_'")
    return pattern


def find_subject(name: str, pattern: str | None, path: Path) -> str:
    """Return the subject in a file's name, or the name itself where there is no expression.

    Raises:
        PackError: if the expression does not find one.
    """
    if pattern is None:
        return name
    match = re.search(pattern, name)
    if match is None or not match.group(1):
        raise PackError(
            f"the option subject, {pattern!r}, finds no subject in the stem of {path}; "
            "correct the expression or rename the file"
        )
    return match.group(1)
