"""Memory that one step frees stays with the process, for the next step to use."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have the C library keep what is freed; first give back what an earlier stage of the process has left.

    Every step frees and takes tensors of the same sizes. By default glibc returns large ones to the system at once, and
    whatever lies at the end of its heap, so that the next step pays for their pages again, one fault for each. The most
    that the process holds at any time does not change. C libraries without such settings are left as they are.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


@cache
def _glibc() -> Any:
    """Return the C library of this process if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
