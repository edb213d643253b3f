"""Example cases: a few test slices with truth and prediction per finetune stage, for people to look at."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysweep.errors import StoreError
from raysweep.store import Store


@dataclass(frozen=True)
class Example:
    """One slice as a person looks at it.

    ``image`` is (H, W) uint8 grey; ``truth`` and ``prediction`` are (H, W) uint8 labels; ``score`` is the slice's mean
    foreground score, or None where no class is in it.
    """

    subject: str
    frame: int
    slice_number: int
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    score: float | None


def write_examples(store: Store, stage: str, examples: Sequence[Example]) -> None:
    """Publish a stage's examples as one compressed npz file."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    facts = []
    for position, example in enumerate(examples):
        facts.append([example.subject, example.frame, example.slice_number, example.score])
        for name in ("image", "truth", "prediction"):
            arrays[f"{name}_{position}"] = getattr(example, name)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    store.write_bytes(store.examples_path(stage), buffer.getvalue())


def read_examples(store: Store, stage: str) -> list[Example]:
    """Read a stage's examples; an empty list where it has none.

    Raises:
        StoreError: if the file is corrupt.
    """
    path = store.examples_path(stage)
    data = store.read_bytes(path)
    if data is None:
        return []
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            return [_example(fact, arrays, position) for position, fact in enumerate(facts)]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StoreError(f"{store.uri}/{path} is corrupt ({error}); delete it") from error


def _example(fact: list[Any], arrays: Mapping[str, Any], position: int) -> Example:
    subject, frame, slice_number, score = fact
    image, truth, prediction = (arrays[f"{name}_{position}"] for name in ("image", "truth", "prediction"))
    return Example(subject, frame, slice_number, image, truth, prediction, score)
