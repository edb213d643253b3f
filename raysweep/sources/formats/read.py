"""Any weight file as named tensors: the kind is told from the content, and nothing in it is executed."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from raysweep.errors import WeightsError
from raysweep.sources.formats.array_pickle import ArrayInFile, read_array_pickle
from raysweep.sources.formats.tensorflow import index_of, read_tensorflow
from raysweep.sources.formats.torch_file import read_torch

UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What torch's restricted unpickler and the readers raise on files that are corrupt, or that are no weights at all."""

_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""Magic number of a checkpoint from before torch 1.6, as its first pickle holds it."""
_MAX_DEPTH = 12
_SKIPPED = ("optimizer", "optimizer_states", "lr_schedulers", "scaler", "amp")
"""Parts of a checkpoint that hold a training's state, not weights."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file, named by their path in it, such as ``state_dict.module.conv1.weight``.

    Kinds: safetensors; PyTorch checkpoints of any age; pickles of arrays (JAX, haiku, detectron); ``.npz``; TensorFlow
    checkpoints, named by their index, their prefix or their folder.

    Raises:
        WeightsError: if the file is missing, corrupt, or holds anything that would have to be executed.
    """
    file = Path(path)
    try:
        if (index := index_of(file)) is not None:
            return read_tensorflow(index)
        content = _content(file)
    except OSError as error:
        raise WeightsError(f"weights file {file} cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise WeightsError(
            f"weights file {file} is not a safe checkpoint: {_reason(error)} Convert it to a plain state dict of "
            "tensors, or to safetensors, with the tool that wrote it."
        ) from error
    tensors = dict(_named(content, "", 0))
    if not tensors:
        kind = f"its keys are {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else ""
        raise WeightsError(
            f"weights file {file} holds no tensors ({kind or f'it holds a {type(content).__name__}'}); "
            "a state dict was expected"
        )
    return tensors


def _content(file: Path) -> Any:
    with file.open("rb") as stream:
        head = stream.read(64)
        if file.suffix == ".safetensors" or head[8:10] == b'{"':
            return load_safetensors(file.read_bytes())
        is_zip = head.startswith(b"PK\x03\x04")
        is_pickle = head.startswith(b"\x80") or file.suffix in (".pkl", ".pickle")
        if is_pickle and _LEGACY_TORCH not in head:
            stream.seek(0)
            return read_array_pickle(stream)
    if is_zip and not _is_torch_zip(file):
        return _archive(file)
    return read_torch(file)


def _reason(error: Exception) -> str:
    """Return the first line of an error; torch's advises to load the file unsafely, which nobody should."""
    text = str(error).strip()
    if asked := re.search(r"Unsupported global: GLOBAL ([\w.]+)", text):
        return f"it asks for {asked[1]}, which is neither an array nor a container."
    if text.startswith("Weights only load failed"):
        return "it is damaged, or no checkpoint of PyTorch."
    return text.splitlines()[0] if text else f"{type(error).__name__}."


def _is_torch_zip(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def _archive(file: Path) -> Any:
    """Read an ``.npz``; another archive is named for what it is."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if not names or not all(name.endswith(".npy") for name in names):
        raise ValueError(f"it is an archive of {', '.join(names[:4])}: unpack it and give the checkpoint in it.")
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _named(value: Any, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor below a value with its dotted path."""
    if isinstance(value, Tensor):
        yield path, value.detach()
    elif isinstance(value, ArrayInFile | np.ndarray):
        array = value.value if isinstance(value, ArrayInFile) else value
        if array.dtype.kind in "fiub":
            native = array.astype(array.dtype.newbyteorder("="))
            yield path, torch.from_numpy(native)
    elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for key, inner in value.items():
            if depth or str(key) not in _SKIPPED:
                yield from _named(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list | tuple) and depth < _MAX_DEPTH:
        for position, inner in enumerate(value):
            yield from _named(inner, f"{path}.{position}" if path else str(position), depth + 1)
