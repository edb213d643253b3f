"""Writing packs: room for all pixels first, then slices in any order and from any process, then index and digest."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from raysweep.data.duplicates import equal_images
from raysweep.data.pack_format import FORMAT, SCHEMA_VERSION, content_digest
from raysweep.data.pack_layout import PackLayout, Slots, open_for_writing, set_text
from raysweep.data.pack_partial import PartialPack
from raysweep.data.pack_slices import PackHeader, SliceHeader, SlicePixels, check_header, check_slices
from raysweep.data.slice_facts import facts_dtype, labels_seen, moments_of, store_slices
from raysweep.errors import PackError
from raysweep.identity import canonical_json

__all__ = ["PackHeader", "PackWriter", "SliceHeader", "SlicePixels", "write_pack"]

Array = npt.NDArray[Any]
NameClasses = Callable[[tuple[int, ...]], tuple[str, ...]]

_LOG = logging.getLogger(__name__)
_LISTED_DUPLICATES = 3


def write_pack(
    out: Path,
    header: PackHeader,
    slices: Sequence[SliceHeader],
    pixels: Iterable[SlicePixels],
    name_classes: NameClasses,
) -> None:
    """Write a pack and publish it under ``out`` in one step; until then no file has that name.

    Args:
        out: Path of the pack; an existing file is replaced.
        header: What the pack says about itself.
        slices: One header a slice, in the order of the rows.
        pixels: The pixels of the same slices in the same order, read one at a time.
        name_classes: Given the labels that occur in the masks, returns the class names, background first.

    Raises:
        PackError: if there are no slices, or a slice does not fit its header.
    """
    with PackWriter(out, header, slices) as writer:
        slots = writer.slots(0, len(slices))
        writer.add(0, store_slices(writer.path, slices, slots, pixels, header.mask_encoding))
        writer.finish(name_classes)


class PackWriter:
    """An unfinished pack: slices are stored at their slots, in any order, until all are and it can be finished.

    ``key`` stands for everything the pixels come from. If an earlier attempt with the same key was killed, its slices
    are there already: ``is_stored`` tells which.
    """

    def __init__(self, out: Path, header: PackHeader, slices: Sequence[SliceHeader], key: str = "") -> None:
        check_header(header)
        check_slices(slices, len(header.label_names))
        self._out, self._header, self._slices = out, header, slices
        self._layout = PackLayout(slices)
        self._partial = PartialPack(
            out, self._layout, _key(header, slices, key), facts_dtype(slices[0].bucket.channels), len(slices)
        )
        self.path = self._partial.path

    def __enter__(self) -> PackWriter:
        self._partial.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._partial.__exit__(kind, error, trace)

    def is_stored(self) -> npt.NDArray[np.bool_]:
        """Return for every row whether its pixels are in the file."""
        stored: npt.NDArray[np.bool_] = self._partial.facts()["is_stored"].astype(bool)
        return stored

    def slots(self, start: int, stop: int) -> Slots:
        """Return where in the file the rows from ``start`` up to ``stop`` belong."""
        return self._layout.slots(start, stop)

    def add(self, row: int, facts: Array) -> None:
        """Note the facts of consecutive slices, the first being ``row``, that :func:`store_slices` has stored."""
        self._partial.add(row, facts)

    def finish(self, name_classes: NameClasses) -> None:
        """Write index, attributes and digest, and publish the pack.

        Raises:
            PackError: if slices are missing.
        """
        facts = self._partial.facts()
        if not facts["is_stored"].all():
            raise PackError(f"{int(facts['is_stored'].sum())} of {len(self._slices)} slices were read")
        if not self._partial.was_completed:
            self._partial.begin_completing()
            with open_for_writing(self.path, "r+") as file:
                self._write_index(file, facts)
                self._write_attributes(file, facts, name_classes)
            self._partial.end_completing()
        with h5py.File(self.path, "r", locking=False) as file:
            digest = content_digest(file)
        self._partial.begin_completing()
        with open_for_writing(self.path, "r+") as file:
            set_text(file, "digest", digest)
        self._partial.publish()
        self._report_duplicates(facts)

    def _write_index(self, file: h5py.File, facts: Array) -> None:
        group = file.create_group("index")
        for name, values in self._columns(facts):
            group.create_dataset(name, data=values)

    def _columns(self, facts: Array) -> Iterator[tuple[str, Array]]:
        """Yield the columns of the index one by one: together they would take more memory than all else."""
        slices = self._slices
        codes = {name: code for code, name in enumerate(self._layout.bucket_names)}
        yield "bucket", np.fromiter((codes[one.bucket.name] for one in slices), np.int32, len(slices))
        yield "position", self._layout.position
        yield "mask_position", self._layout.mask_position
        yield "frame", np.fromiter((one.frame for one in slices), np.int32, len(slices))
        yield "slice_number", np.fromiter((one.slice_number for one in slices), np.int32, len(slices))
        yield "annotated", np.fromiter((one.annotated for one in slices), np.uint8, len(slices))
        yield "spacing_mm", _vectors((one.spacing_mm for one in slices), (len(slices), 2))
        yield "intensity_low", facts["low"].min(axis=1)
        yield "intensity_high", facts["high"].max(axis=1)
        yield "labels", _vectors((one.labels for one in slices), (len(slices), len(self._header.label_names)))
        yield "channel_low", facts["low"]
        yield "channel_high", facts["high"]
        yield "content", facts["content"]
        for name in ("subject", "volume", "split"):
            encoded = {text: text.encode() for text in {getattr(one, name) for one in slices}}
            dtype = h5py.string_dtype("utf-8", max(1, *map(len, encoded.values())))
            yield name, np.fromiter((encoded[getattr(one, name)] for one in slices), dtype, len(slices))

    def _write_attributes(self, file: h5py.File, facts: Array, name_classes: NameClasses) -> None:
        header = self._header
        # A pack for evaluation only has no train slices; its own are the only ones there are.
        train = np.array([one.split == "train" for one in self._slices])
        intensity = moments_of(facts, train if train.any() else ~train).statistics()
        seen = set(np.flatnonzero(labels_seen(facts)).tolist()) - {header.ignore_label}
        texts = {
            "format": FORMAT,
            "schema_version": canonical_json(SCHEMA_VERSION),
            "dataset": header.dataset,
            "recipe": canonical_json(header.recipe),
            "options": canonical_json(header.options),
            "class_names": canonical_json(name_classes(tuple(sorted(seen)))),
            "label_names": canonical_json(header.label_names),
            "intensity": canonical_json(asdict(intensity)),
            "label_kind": canonical_json(header.label_kind),
            "label_scopes": canonical_json(header.scopes),
            "mask_encoding": canonical_json(header.mask_encoding),
            "ignore_label": canonical_json(header.ignore_label),
            "split_rule": canonical_json(header.split_rule),
        }
        for name, text in texts.items():
            set_text(file, name, text)

    def _report_duplicates(self, facts: Array) -> None:
        split = np.array([one.split for one in self._slices])
        across, _ = equal_images(facts["content"], split)
        if not across:
            return
        examples = "; ".join(
            " = ".join(f"{self._slices[row].volume} ({self._slices[row].split})" for row in _one_a_split(group, split))
            for group in across[:_LISTED_DUPLICATES]
        )
        _LOG.warning(
            "%s: %d images occur in more than one split, pixel for pixel, so that test scores may flatter: %s%s",
            self._out,
            len(across),
            examples,
            " ..." if len(across) > _LISTED_DUPLICATES else "",
        )


def _one_a_split(rows: Sequence[int], split: Array) -> list[int]:
    """Return the first of some rows in each split."""
    return [row for number, row in enumerate(rows) if split[row] not in split[rows[:number]]]


def _vectors(rows: Iterable[Sequence[float]], shape: tuple[int, int]) -> Array:
    """Return rows of numbers as one float32 array."""
    vectors = np.empty(shape, np.float32)
    for number, row in enumerate(rows):
        vectors[number] = row
    return vectors


def _key(header: PackHeader, slices: Sequence[SliceHeader], key: str) -> str:
    hashed = hashlib.sha256(f"{SCHEMA_VERSION}:{key}:{header!r}".encode())
    for one in slices:
        hashed.update(repr(one).encode())
    return hashed.hexdigest()
