"""What a report says about a study beyond its tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedNumber:
    """A number from a publication, printed beside the study's own; ``value`` and ``spread`` are 0 to 1."""

    arm: str
    """Label of the arm, as the report writes it: ``source · method · 6 ep``."""
    metric: str
    value: float
    spread: float | None = None
    annotations: int | None = None
    """Annotation count it was measured at; None for full data."""
    reference: str = ""
    """Where it is printed: paper and table."""


@dataclass(frozen=True)
class StudyFacts:
    """What the study is, and where its numbers come from."""

    study: str
    description: str = ""
    protocol: str = ""
    """Name of the protocol, and what it repeats of a published one."""
    raysweep_version: str = ""
    created: str | None = None
    """When the report was made; left out of the page if None, so that equal results give equal pages."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Label and value: pack digests, devices, commit, ..."""
    published: tuple[PublishedNumber, ...] = ()
