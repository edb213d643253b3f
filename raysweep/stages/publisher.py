"""Publishing files while the stage goes on: one thread, in order, and no error is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_MAX_WAITING = 1


class Publisher:
    """Runs jobs one after another in a thread of its own.

    At most one job waits behind the one that runs, so that states do not pile up where the store is slower than
    training. What a job raises is raised by the next call. As a context it ends when all jobs have.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publisher")
        self._jobs: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job run after those before it.

        Raises:
            Exception: whatever an earlier job raised; this one is not run then.
        """
        self._wait_until_at_most(_MAX_WAITING)
        self._jobs.append(self._thread.submit(job))

    def wait(self) -> None:
        """Wait until all jobs have run.

        Raises:
            Exception: whatever one of them raised.
        """
        self._wait_until_at_most(0)

    def _wait_until_at_most(self, number: int) -> None:
        while self._jobs and (len(self._jobs) > number or self._jobs[0].done()):
            self._jobs.popleft().result()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all jobs; raise what one of them raised, unless an error is on its way already."""
        self._thread.shutdown(wait=True)
        if kind is None:
            self.wait()


def copied(state: Any) -> tuple[Any, Callable[[], None]]:
    """Return a copy of nested tensors on the CPU, and what to call before reading it.

    Training may change the originals at once: copies from a GPU are queued behind the work that is under way there,
    into pinned memory, and only whoever reads them waits.
    """
    devices: set[torch.device] = set()
    copy = _copied(state, devices)
    events = []
    for device in devices:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        events.append(event)

    def ready() -> None:
        for event in events:
            event.synchronize()

    return copy, ready


def _copied(state: Any, devices: set[torch.device]) -> Any:
    if isinstance(state, Tensor):
        if state.device.type == "cuda":
            devices.add(state.device)
            return state.detach().to("cpu", non_blocking=True)
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _copied(value, devices) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(value, devices) for value in state)
    return state
