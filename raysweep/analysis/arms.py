"""What is compared: arms, and the settings within which they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One way to get an encoder: a source, with its method and its pretraining epochs where it has them."""

    source: str
    method: str | None = None
    pretrain_epochs: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Arm:
        """Return the arm of a row of ``cells`` or of any table of answers."""
        return cls(row["source"], row["method"], row["pretrain_epochs"])

    @property
    def series(self) -> str:
        """The arm without its length: ``source`` or ``source · method``."""
        return self.source if self.method is None else f"{self.source} · {self.method}"

    @property
    def label(self) -> str:
        """The arm as people read it: ``source``, ``source · method`` or ``source · method · 6 ep``."""
        return self.series if self.pretrain_epochs is None else f"{self.series} · {self.pretrain_epochs} ep"


@dataclass(frozen=True)
class Setting:
    """What must be equal for scores to be comparable: the optional axes of a study."""

    task: str | None
    backbone: str | None
    tuning: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Setting:
        """Return the setting of a row of ``cells`` or of any table of answers."""
        return cls(row["task"], row["backbone"], row["tuning"])

    @property
    def label(self) -> str:
        """The setting as people read it: ``task · backbone · tuning``."""
        return " · ".join(part for part in (self.task, self.backbone, self.tuning) if part)
