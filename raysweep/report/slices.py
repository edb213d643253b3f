"""Example slices as pictures: image, truth and the predictions of chosen arms."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raysweep.analysis import Arm, Setting
from raysweep.report.findings import Findings, at, longest
from raysweep.results.examples import Example

# Okabe & Ito's colours that stand out from grey.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
_SIDE = 192
_FILL = 0.38
_MAX_ARMS = 8
_Item = TypeVar("_Item")
ReadExamples = Callable[[str], list[Example]]


@dataclass(frozen=True)
class Picture:
    """One picture: its heading, its PNG as a data URI, what it shows in words, and the slice's score."""

    heading: str
    uri: str
    alt: str
    score: float | None = None


@dataclass(frozen=True)
class Gallery:
    """Slices at one annotation count; each row is one slice: image, truth, predictions."""

    setting: Setting
    annotations: int
    headings: tuple[str, ...]
    rows: tuple[tuple[Picture, ...], ...]


def galleries(findings: Findings, examples: ReadExamples) -> list[Gallery]:
    """Return the best, median and worst slice with every main arm, at the smallest and largest annotation count.

    Slices are those of the few kept of each stage that all arms have, ordered by their mean score over the arms.
    """
    found = []
    for setting in findings.settings:
        counts = findings.annotations(setting)
        for count in dict.fromkeys((counts[0], counts[-1])):
            gallery = _gallery(findings, setting, count, examples)
            if gallery is not None:
                found.append(gallery)
    return found


def picture_uri(image: NDArray[np.uint8], labels: NDArray[np.uint8] | None = None) -> str:
    """Return a PNG data URI of a (H, W) uint8 image, with (H, W) uint8 labels drawn over it if given."""
    factor = max(1, round(_SIDE / max(image.shape)))
    height, width = image.shape
    grey = Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(grey, np.float64)[..., None], 3, axis=2)
    if labels is not None:
        large = labels.repeat(factor, axis=0).repeat(factor, axis=1)
        edges = _edges(large)
        for value in np.unique(large[large > 0]):
            colour = _rgb(CLASS_COLOURS[(int(value) - 1) % len(CLASS_COLOURS)])
            inside = large == value
            pixels[inside] = (1 - _FILL) * pixels[inside] + _FILL * colour
            pixels[inside & edges] = colour
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels.round().astype(np.uint8)).quantize(96, dither=Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _gallery(findings: Findings, setting: Setting, count: int, examples: ReadExamples) -> Gallery | None:
    shown: list[tuple[str, list[Example]]] = []
    finished = [row for row in at(longest(findings.scores), setting, count) if row["mean"] is not None]
    for row in _spread(sorted(finished, key=lambda row: -row["mean"]), _MAX_ARMS):
        stage = next(
            (t["stage"] for t in at(findings.trials, setting, count)
             if Arm.of(t) == Arm.of(row) and t["status"] == "done"), None,
        )  # fmt: skip
        found = examples(stage) if stage is not None else []
        if found:
            shown.append((row["arm"], found))
    if not shown:
        return None
    by_slice = [{(e.subject, e.frame, e.slice_number): e for e in found} for _, found in shown]
    common = [key for key in by_slice[0] if all(key in other for other in by_slice)]
    common.sort(key=lambda key: -_mean_score([slices[key] for slices in by_slice]))
    labels = [label for label, _ in shown]
    ranks = {1: ("",), 2: ("Best: ", "Worst: "), 3: ("Best: ", "Median: ", "Worst: ")}[min(len(common), 3) or 1]
    rows = tuple(
        _pictures(rank, labels, [slices[key] for slices in by_slice])
        for rank, key in zip(ranks, _spread(common, 3), strict=False)
    )
    return Gallery(setting, count, ("Image", "Truth", *labels), rows) if rows else None


def _spread(items: list[_Item], most: int) -> list[_Item]:
    """Return at most ``most`` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(position * (len(items) - 1) / (most - 1))] for position in range(most)]


def _mean_score(versions: Sequence[Example]) -> float:
    scores = [example.score for example in versions if example.score is not None]
    return sum(scores) / len(scores) if scores else 0.0


def _pictures(rank: str, labels: Sequence[str], versions: Sequence[Example]) -> tuple[Picture, ...]:
    first = versions[0]
    name = f"{first.subject}, slice {first.slice_number}"
    if first.frame >= 0:
        name = f"{first.subject}, frame {first.frame}, slice {first.slice_number}"
    pictures = [
        Picture(f"{rank}{name}", picture_uri(first.image), f"{name}, without labels"),
        Picture("Truth", picture_uri(first.image, first.truth), f"{name}, with the annotator's labels"),
    ]
    for label, example in zip(labels, versions, strict=True):
        uri = picture_uri(example.image, example.prediction)
        pictures.append(Picture(label, uri, f"{name}, with the prediction of {label}", example.score))
    return tuple(pictures)


def _edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    padded = np.pad(labels, 1, mode="edge")
    edges = np.zeros(labels.shape, bool)
    for shifted in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edges |= shifted != labels
    return edges


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)
