"""Reading weight files of every published kind into named tensors; nothing in a file is ever executed."""

from raysweep.sources.formats.read import UNREADABLE, read_tensors

__all__ = ["UNREADABLE", "read_tensors"]
