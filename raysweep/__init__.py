"""raysweep: which pretraining, how many epochs of it, and how many annotated images do I need?"""

from raysweep._version import __version__

__all__ = ["__version__"]
