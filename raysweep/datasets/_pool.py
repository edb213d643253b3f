"""Processes that look at files: work in order, bounded in memory, ended with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import Any

from raysweep.errors import PackError

MEMORY_BYTES = 1 << 30
"""What packing may take in all, unless the caller asks for more processes than fit."""
_PARENT_BYTES = 250 << 20
_PROCESS_BYTES = 60 << 20  # an interpreter with numpy and the readers' libraries
_TASKS_AHEAD_PER_WORKER = 3


def choose_workers(asked: int | None, largest_task_bytes: int) -> int:
    """Return the number of processes: as asked, else one a core, fewer where they would not fit into MEMORY_BYTES.

    Raises:
        PackError: if fewer than one is asked for.
    """
    if asked is not None:
        if asked < 1:
            raise PackError(f"workers is {asked}; it must be at least 1")
        return asked
    fit = (MEMORY_BYTES - _PARENT_BYTES) // (_PROCESS_BYTES + largest_task_bytes)
    return max(1, min(len(os.sched_getaffinity(0)), fit))


def ordered_map(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """Yield ``function(*one)`` for each of the arguments, in their order; with one worker in this process.

    Raises:
        PackError: if a process dies.
    """
    if workers == 1:
        yield from (function(*one) for one in arguments)
        return
    # A fork server, not a fork: the caller may hold threads (Ray, torch) that a fork would break.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raysweep.datasets._packing"])
    pool = ProcessPoolExecutor(workers, context, _end_with_parent)
    waiting: deque[Future[Any]] = deque()
    remaining = iter(arguments)
    try:
        for one in islice(remaining, workers * _TASKS_AHEAD_PER_WORKER):
            waiting.append(pool.submit(function, *one))
        while waiting:
            yield waiting.popleft().result()
            for one in islice(remaining, 1):
                waiting.append(pool.submit(function, *one))
    except BrokenProcessPool as error:
        raise PackError(
            "a reading process died: out of memory, or the calling script does not guard its own code with "
            "`if __name__ == '__main__':`. Use fewer workers; workers=1 reads without processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone, which a killed parent could no longer ask for."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
