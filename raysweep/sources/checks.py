"""Trying weights out: loaded into an encoder of their architecture, with the account of every key."""

from __future__ import annotations

from pathlib import Path

from raysweep import zoo
from raysweep.errors import StudyError, WeightsError
from raysweep.settings import Backbone
from raysweep.sources.encoder import Encoder, build_encoder
from raysweep.sources.fit import LoadReport, load_weights
from raysweep.sources.formats import read_tensors
from raysweep.sources.library import read_stored_weights
from raysweep.store import Store


def check_stored(store: Store, name: str, channels: int) -> LoadReport:
    """Load weights of the store into their architecture and return the account.

    Raises:
        WeightsError: if they are not in the store, corrupt, or do not fit.
    """
    known = zoo.weights().get(name)
    stored = known.timm or name if known is not None else name
    architecture = known.architecture if known is not None else name.split(".")[0]
    state, _ = read_stored_weights(store, stored)
    return load_weights(_encoder(architecture, channels), state, name=name)


def check_file(file: Path, encoder: str, channels: int, prefix: str | None) -> LoadReport:
    """Load a file into an encoder and return the account.

    Raises:
        WeightsError: if the file cannot be read or does not fit, or there is no such encoder.
    """
    return load_weights(_encoder(encoder, channels), read_tensors(file), name=str(file), prefix=prefix)


def _encoder(name: str, channels: int) -> Encoder:
    try:
        return build_encoder(Backbone(encoder=name, channels=channels))
    except StudyError as error:
        raise WeightsError(str(error)) from error
