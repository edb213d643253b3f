"""Files that processes of a node share through the kernel's locks, which a killed process lets go of."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.1


def hold(path: Path) -> int | None:
    """Open a file, which ``delete_unless_held`` spares until it is closed; None if it is not there."""
    try:
        held = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(held, fcntl.LOCK_SH)  # waits for no more than a deletion
    try:
        if path.stat().st_ino == os.fstat(held).st_ino:
            return held
    except FileNotFoundError:
        pass
    os.close(held)
    return None


def delete_unless_held(path: Path) -> None:
    """Delete a file unless somebody holds it."""
    try:
        held = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(held)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it as long as it takes."""
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_S)
        yield
