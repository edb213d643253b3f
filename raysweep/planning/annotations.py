"""Annotation counts as a grid writes them, as numbers of units of a pack."""

from __future__ import annotations

from raysweep.errors import StudyError


def resolve_count(asked: int | str, available: int, unit: str, pack: str) -> int:
    """Return an annotation count as a number of units.

    Raises:
        StudyError: if the pack has fewer annotated units.
    """
    if isinstance(asked, int):
        count = asked
    elif asked == "all":
        count = available
    else:
        count = max(1, round(available * _share(asked)))
    if count > available or available == 0:
        raise StudyError(
            f"grid.annotations asks for {asked}, but pack {pack!r} has {available} annotated {unit}s to train on; "
            f"allowed: 1 to {available}, a share such as 5%, or all"
        )
    return count


def repetitions(asked: int | str, available: int) -> int:
    """Return how often Kalapos & Gyires-Toth 2022 repeat a subset: int(1 / its share of the annotations).

    A share is taken as it is written, for rounding to whole slices changes it.
    """
    if asked == "all":
        return 1
    return available // asked if isinstance(asked, int) else int(1 / _share(asked))


def _share(asked: str) -> float:
    return float(asked.rstrip("%")) / 100
