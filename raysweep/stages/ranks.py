"""Data parallelism: the ranks of one stage, and what they tell each other.

Every rank holds the whole batch and computes the whole loss; what is divided is the rows of calls of the large networks
(see ``raysweep.methods.Ranks``). The process group is the run's own and never torch's default one, so libraries that
look for that see a process alone, and do not gather a second time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from raysweep.methods import Ranks
from raysweep.methods._ranks import P, T
from raysweep.stages.shared_statistics import SharedStatistics

_BUCKET_NUMEL = 8 * 2**20
"""Gradients that are summed in one message, at most, unless one parameter alone has more."""


TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for another, which may be saving or probing; one that died is found at once."""


def device_of(rank: int) -> torch.device:
    """Return what a rank computes on: the GPU of its number among those that the stage was given, or the CPU."""
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def connect(folder: Path, rank: int, size: int, device: torch.device, timeout: timedelta) -> RankGroup:
    """Join the ranks that meet in a folder of this machine; returns when all are there.

    GPUs talk through NCCL, processors through gloo, on the loopback interface alone.
    """
    torch_dist: Any = dist  # torch declares no types for what is used of it here
    store = torch_dist.FileStore(str(folder / "meeting"), size)
    kind = torch_dist.ProcessGroupNCCL if device.type == "cuda" else torch_dist.ProcessGroupGloo
    if device.type == "cuda":
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        options = kind.Options()
    else:
        options = kind._Options()
        options._devices = [kind.create_device(hostname="127.0.0.1")]
    options._timeout = timeout
    group = kind(store, rank, size, options)
    return RankGroup(group, rank, size, device)


class RankGroup(Ranks):
    """The ranks of a run of several processes."""

    def __init__(self, group: Any, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self._group = group
        self._device = device
        self._together = False
        self._seed = 0
        self._closing = threading.Lock()
        self._is_closed = False

    @contextmanager
    def together(self, step: int) -> Iterator[None]:
        """Divide the calls made in this context; every rank must make the same ones."""
        self._together, self._seed = True, step * 1_000_003
        try:
            yield
        finally:
            self._together = False

    def divided(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function whose rows the ranks share out; a divided call within another is this rank's alone."""

        @wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> T:
            if not self._together:
                return function(*args, **options)
            num_rows = _number_of_rows((args, options))
            own_args, own_options = pytree.tree_map(lambda value: self._take(value, num_rows), (args, options))
            self._together = False
            self._seed += 1
            try:
                with self._own_random(), SharedStatistics(self.all_gather):
                    output = function(*own_args, **own_options)
            finally:
                self._together = True
            joined: T = pytree.tree_map_only(Tensor, lambda rows: self._join(rows, num_rows), output)
            return joined

        return call

    def share(self, num_rows: int) -> slice:
        """Return which of N rows are this rank's: equal shares, the first ranks one more where they do not go up."""
        least, more = divmod(num_rows, self.size)
        first = self.rank * least + min(self.rank, more)
        return slice(first, first + least + (self.rank < more))

    def gather(self, rows: Tensor, num_rows: int) -> Tensor:
        """Return the N rows of all ranks from the n of each, without gradient."""
        least, more = divmod(num_rows, self.size)
        sent = rows.detach().contiguous()
        if more and self.rank >= more:
            sent = torch.cat((sent, sent.new_zeros(1, *sent.shape[1:])))
        parts = self.all_gather(sent)
        return torch.cat([part[: least + (rank < more)] for rank, part in enumerate(parts)])

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """Return a tensor of every rank, all of one shape, in the order of ranks; no gradient."""
        # As bytes, for which any backend will do: nothing is computed with them.
        sent = x.detach().contiguous().reshape(-1).view(torch.uint8)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        self._group.allgather([received], [sent]).wait()
        return [part.view(x.dtype).reshape(x.shape) for part in received]

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over ranks; no gradient."""
        total = x.detach().clone(memory_format=torch.contiguous_format)
        self._group.allreduce([total]).wait()
        return total

    @torch.no_grad()
    def add_gradients(self, partial: Iterable[nn.Parameter], whole: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of divided nets, and average the others."""
        for parameters, factor in ((partial, 1.0), (whole, 1 / self.size)):
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            for bucket in _buckets(gradients):
                total = self.sum(torch.cat([gradient.reshape(-1) for gradient in bucket])).mul_(factor)
                for gradient, part in zip(bucket, torch.split(total, [g.numel() for g in bucket]), strict=True):
                    gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def align(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        for tensor in (*module.parameters(), *module.buffers()):
            sent = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            sent = sent.clone()
            self._group.broadcast([sent]).wait()
            tensor.copy_(sent.view(tensor.dtype).reshape(tensor.shape))

    def close(self) -> None:
        """Leave the group, and end what waits for it, in whichever thread."""
        with self._closing:
            if not self._is_closed:
                self._group.abort()
            self._is_closed = True

    def _take(self, value: Any, num_rows: int) -> Any:
        if not isinstance(value, Tensor):
            return value
        if isinstance(value, nn.Parameter):
            return _Whole.apply(value, self) if _needs_gradient(value) else value
        if len(value) != num_rows:
            raise ValueError(f"a divided call takes tensors of equally many rows, not {num_rows} and {len(value)}")
        own = self.share(num_rows)
        return _Taken.apply(value, self, own) if _needs_gradient(value) else value[own]

    def _join(self, rows: Tensor, num_rows: int) -> Tensor:
        if _needs_gradient(rows):
            joined: Tensor = _Joined.apply(rows, self, num_rows)
            return joined
        return self.gather(rows, num_rows)

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """Draw what is random in a divided call, such as dropout, from numbers of this rank and this call.

        Afterwards torch's generators are as before on every rank, however many numbers each has taken.
        """
        cuda = self._device.type == "cuda"
        state = torch.get_rng_state(), torch.cuda.get_rng_state(self._device) if cuda else None
        torch.manual_seed(self._seed * self.size + self.rank)
        try:
            yield
        finally:
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.cuda.set_rng_state(state[1], self._device)


class _Taken(torch.autograd.Function):
    """This rank's rows of a tensor that every rank has: the gradient of the whole is gathered from all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: RankGroup, own: slice) -> Tensor:
        ctx.ranks, ctx.num_rows = ranks, len(x)
        return x[own].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.ranks.gather(gradient, ctx.num_rows), None, None


class _Joined(torch.autograd.Function):
    """The rows of all ranks, on every rank: each has the whole gradient, and passes on that of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: RankGroup, num_rows: int) -> Tensor:
        ctx.own = ranks.share(num_rows)
        return ranks.gather(rows, num_rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own], None, None


class _Whole(torch.autograd.Function):
    """A parameter that every rank uses for its rows: its gradient is the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, ranks: RankGroup) -> Tensor:
        ctx.ranks = ranks
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.sum(gradient), None


def _needs_gradient(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _number_of_rows(arguments: Any) -> int:
    for value in pytree.tree_leaves(arguments):
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            return len(value)
    raise ValueError("a divided call takes a tensor of rows")


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield gradients of one dtype together, in their order, up to the size of a message."""
    bucket: list[Tensor] = []
    numel = 0
    for gradient in gradients:
        if bucket and (gradient.dtype != bucket[0].dtype or numel + gradient.numel() > _BUCKET_NUMEL):
            yield bucket
            bucket, numel = [], 0
        bucket.append(gradient)
        numel += gradient.numel()
    if bucket:
        yield bucket
