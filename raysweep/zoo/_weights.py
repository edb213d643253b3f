"""Finding published weights by name."""

from __future__ import annotations

from functools import cache

from raysweep import registry
from raysweep.errors import WeightsError, did_you_mean
from raysweep.zoo._published import Published


@cache
def weights() -> dict[str, Published]:
    """Return all published weights by name, family by family.

    Raises:
        ValueError: if a name stands twice.
    """
    found: dict[str, Published] = {}
    for family in registry.names("zoo"):
        for entry in registry.load("zoo", family).WEIGHTS:
            if entry.name in found:
                raise ValueError(f"the zoo has two entries named {entry.name!r}")
            found[entry.name] = entry
    return found


def names() -> list[str]:
    """Return the names of all published weights, sorted."""
    return sorted(weights())


def find(name: str) -> Published:
    """Return published weights by name.

    Raises:
        WeightsError: if there are none of that name; the message has the nearest one.
    """
    if name not in weights():
        raise WeightsError(
            f"no weights are named {name!r}.{did_you_mean(name, weights())} `raysweep weights list` shows all; a timm "
            "name carries its tag (resnet50.a1_in1k), and a file is given by its path."
        )
    return weights()[name]
