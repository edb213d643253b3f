"""What a chain starts from, as configurations and inputs of stages say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raysweep import zoo
from raysweep.errors import StudyError
from raysweep.identity import file_digest
from raysweep.study import WeightsStep


def start_of(weights: WeightsStep | None, published: Mapping[str, str], digest: Callable[[str], str]) -> dict[str, Any]:
    """Return a chain's start as a stage's configuration has it: by content, wherever the bytes lie.

    Args:
        weights: the step; None for random weights.
        published: digests of published weights by their name in the zoo, as far as they are known.
        digest: returns the digest of a file.
    """
    if weights is None:
        return {"random": True}
    own: dict[str, Any] = {}
    if weights.prefix is not None:
        own["prefix"] = weights.prefix
    if weights.normalisation is not None:
        own["normalisation"] = weights.normalisation.model_dump(mode="json")
    if weights.zoo is not None:
        return {**zoo.start_of(zoo.find(weights.zoo), published.get(weights.zoo)), **own}
    return {"weights": weights.timm or digest(str(weights.file)), **own}


def inputs_of(weights: WeightsStep | None) -> dict[str, str]:
    """Return where a stage finds initial weights: a file, or a name in the store's weights folder."""
    if weights is not None and weights.file is not None:
        return {"weights": str(Path(weights.file).absolute())}  # workers have other working directories
    if weights is not None and weights.zoo is not None and zoo.find(weights.zoo).timm is None:
        return {"zoo": weights.zoo}
    return {}


def weights_digest(file: str) -> str:
    """Return the digest of a weights file.

    Raises:
        StudyError: if it cannot be read.
    """
    try:
        return file_digest(file)
    except OSError as error:
        raise StudyError(f"weights file {file} cannot be read: {error.strerror or error}") from error
