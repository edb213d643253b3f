"""Encoders and networks out of the store, for use without raysweep."""

from raysweep.export.find import Found, find_trained
from raysweep.export.formats import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "Found", "export", "find_trained"]
