"""What the time of a stage goes into: the phases that training loops name, for whoever measures them. No torch here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

Phase = Literal["data", "augmentation", "forward", "backward", "optimiser", "evaluation", "saving"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class Phases:
    """Names the parts of a stage; this one measures nothing and costs nothing."""

    def __call__(self, name: Phase) -> AbstractContextManager[None]:
        """Return the context that work of a phase runs in; phases do not nest."""
        return nullcontext()

    def step(self) -> None:
        """Say that the next optimiser step begins."""

    def close(self) -> None:
        """Say that the stage has ended, however it did."""


UNMEASURED = Phases()
