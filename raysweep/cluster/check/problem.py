"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass

from raysweep.secrecy import mask


@dataclass(frozen=True)
class Problem:
    """One place of a file that breaks a rule."""

    key: str
    """Where, as a path of keys, or a line."""
    value: str
    """What stands there."""
    wrong: str
    """What is wrong with it, what is allowed, and what to do."""

    def __str__(self) -> str:
        value = mask(self.value if len(self.value) <= 120 else self.value[:117] + "...")
        return f"{self.key}: {value!r}: {self.wrong}" if value else f"{self.key}: {self.wrong}"


@dataclass(frozen=True)
class Findings:
    """What there is to say of a file."""

    kind: str
    """What the file was checked as."""
    problems: tuple[Problem, ...]
    to_fill_in: tuple[str, ...] = ()
    """Placeholders of templates that are still in it, with their lines."""
