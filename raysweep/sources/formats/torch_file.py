"""PyTorch checkpoints, loaded with ``weights_only=True``; settings of training code inside them become inert."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from raysweep.sources.formats.array_pickle import HARMLESS, NUMPY_STAND_INS, Inert

_LEGACY_PICKLES = 4
"""Pickles of a checkpoint from before torch 1.6: magic number, protocol, system, content."""


def read_torch(file: Path) -> Any:
    """Load a checkpoint with torch's restricted unpickler.

    Names of training code (``argparse.Namespace``, callbacks) that published checkpoints carry beside their weights
    are bound to inert classes of our own for the duration of the call; nothing is imported for them.

    Raises:
        pickle.UnpicklingError, RuntimeError: if it is damaged or asks for anything else.
    """
    inert = [
        (type("Inert", (Inert,), {}), name) for name in sorted(set(_global_names(file))) if name.startswith(HARMLESS)
    ]
    numpy = [(stand_in, name) for name, stand_in in NUMPY_STAND_INS.items()]
    with torch.serialization.safe_globals([*inert, *numpy]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _global_names(file: Path) -> Iterator[str]:
    """Yield the globals that a checkpoint's pickle names, without loading it."""
    with contextlib.suppress(ValueError, zipfile.BadZipFile, OSError, pickle.UnpicklingError):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        yield from _names_in(pickletools.genops(archive.read(name)))
            return
        with file.open("rb") as stream:
            for _ in range(_LEGACY_PICKLES):
                yield from _names_in(pickletools.genops(stream))


def _names_in(operations: Iterator[Any]) -> Iterator[str]:
    texts: list[str] = []
    for operation, argument, _ in operations:
        if operation.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
