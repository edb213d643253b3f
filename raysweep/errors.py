"""Errors a user can act on: each says what is wrong, where, the value, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaysweepError(Exception):
    """Base of every error raysweep raises on purpose; the command line prints it without a traceback."""


class StudyError(RaysweepError):
    """A study file that cannot be read, does not validate, or contradicts itself or its packs."""


class PackError(RaysweepError):
    """A pack that is missing or corrupt, or source data that cannot be packed."""


class WeightsError(RaysweepError):
    """Weights that are missing, unreadable, or do not fit the encoder."""


class StageError(RaysweepError):
    """A stage that cannot go on: its loss is not finite, or the device lacks what it asks for."""


class StoreError(RaysweepError):
    """A store that cannot be opened, or that another driver is using."""


class QueryError(RaysweepError):
    """A query that the store's tables cannot answer."""


class ClusterError(RaysweepError):
    """A cluster file that cannot be rendered, read, or that breaks a rule."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the allowed name nearest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
