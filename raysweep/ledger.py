"""What the store keeps of how stages ended and of the attempts that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

FailureKind = Literal["error", "gpu-memory", "memory", "worker", "node", "preempted", "time-limit", "hung", "resources"]
"""What went wrong: the stage raised (error); the GPU, or the node, ran out of memory; the worker process died; its node
was lost; it was told to end, and has saved its training state (preempted); it took longer than it may; it gave no sign
of life; or no node has room for it."""


@dataclass(frozen=True)
class LedgerRecord:
    """How a stage ended."""

    stage: str
    status: Literal["done", "failed", "stopped"]
    """stopped: by the study's scheduler, before its last epoch; without one it would go on from its training state."""
    snapshots: tuple[int, ...] = ()
    """Epochs whose snapshots are published."""
    error: str | None = None
    """Last line of the exception."""
    traceback: str | None = None
    attempt: int = 1
    host: str = ""
    model: bool = False
    """Whether the tested network is published."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-like values."""
        return {**self.__dict__, "snapshots": list(self.snapshots)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LedgerRecord:
        """Rebuild a record; keys of newer versions are ignored.

        Raises:
            ValueError: if the stage or its status is missing, or the status is no known one.
        """
        known = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        if not isinstance(known.get("stage"), str) or known.get("status") not in ("done", "failed", "stopped"):
            raise ValueError("stage and status (done, failed or stopped) are required")
        return cls(**{**known, "snapshots": tuple(known.get("snapshots", ()))})


@dataclass(frozen=True)
class FailureRecord:
    """One attempt of a stage that failed."""

    stage: str
    attempt: int
    kind: FailureKind
    reason: str
    """Last line of the exception, or what the engine found."""
    traceback: str = ""
    host: str = ""
    at: str = ""
    """When, in ISO 8601 with UTC."""
    counted: bool = True
    """Whether it used up one of the stage's attempts; a lost node or a preemption does not."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-like values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FailureRecord:
        """Rebuild a record; keys of newer versions are ignored.

        Raises:
            ValueError: if the kind of failure is unknown.
            TypeError: if a key is missing.
        """
        record = cls(**{key: value[key] for key in cls.__dataclass_fields__ if key in value})
        if record.kind not in get_args(FailureKind):
            raise ValueError(f"unknown kind of failure {record.kind!r}")
        return record
