"""Published weights as data: where they are, what they were trained on, what their encoder expects to see.

A module is a family, and its tuple ``WEIGHTS`` is all there is to register. No torch here: studies name these weights,
and `raysweep.sources` reads and fits them.
"""

from raysweep.zoo._published import IMAGENET, INPUTS, Input, Published, start_of
from raysweep.zoo._weights import find, names, weights

__all__ = ["IMAGENET", "INPUTS", "Input", "Published", "find", "names", "start_of", "weights"]
