"""The processes that train one stage together, as a method sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

P = ParamSpec("P")
T = TypeVar("T")


class Ranks:
    """The ranks of a data-parallel run; this class itself is a process that trains alone.

    Every rank does the same on the same whole batch, but for calls that are divided: there each rank computes some of
    the rows, and all of them have all rows afterwards. So a loss, a queue, a centre or a clustering sees the whole
    batch on every rank, and no method knows how many there are.

    Shapes: N rows of a whole batch, n of this rank.
    """

    rank: int = 0
    """Number of this process, from 0; rank 0 publishes."""
    size: int = 1
    """Number of processes."""

    def together(self, step: int) -> AbstractContextManager[None]:
        """Return a context in which divided calls are divided; every rank must make the same ones in it."""
        return nullcontext()

    def divided(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function whose rows the ranks share out.

        Each row of what it returns must follow from the same row of what it takes, batch normalisation aside, which
        sees the rows of all ranks. Its tensors are rows, but for parameters, which every rank takes whole.
        """
        return function

    def share(self, num_rows: int) -> slice:
        """Return which of N rows are this rank's."""
        return slice(0, num_rows)

    def gather(self, rows: Tensor, num_rows: int) -> Tensor:
        """Return the N rows of all ranks from the n of each, without gradient."""
        return rows

    def add_gradients(self, partial: Iterable[nn.Parameter], whole: Iterable[nn.Parameter]) -> None:
        """Give every rank the gradient of the whole batch.

        Args:
            partial: parameters of divided nets, whose gradients are sums over each rank's rows: they are added up.
            whole: all others, whose gradients every rank has already: they are averaged, so that no rank drifts away.
        """

    def align(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""


ALONE = Ranks()
"""A process that trains alone."""
