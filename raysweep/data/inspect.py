"""What is in a pack: facts for a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.duplicates import equal_images
from raysweep.data.pack import Pack
from raysweep.data.pack_format import SPLITS, UNCERTAIN

Array = npt.NDArray[Any]

_LISTED_DUPLICATES = 10


def describe(pack: Pack) -> dict[str, Any]:
    """Return what is in a pack, as values that JSON can hold. Reads all masks, no images."""
    index = pack.index
    counts = _mask_counts(pack)
    return {
        "path": str(pack.path),
        "dataset": pack.dataset,
        "recipe": pack.recipe,
        "options": pack.options,
        "digest": pack.digest,
        "file_bytes": pack.path.stat().st_size,
        "slices": len(pack),
        "annotated_slices": int(index.annotated.sum()),
        "subjects": len(np.unique(index.subject)),
        "volumes": len(np.unique(index.volume)),
        "channels": pack.num_channels,
        "dtypes": sorted({bucket.dtype for bucket in pack.buckets}),
        "buckets": {bucket.name: int((index.bucket == code).sum()) for code, bucket in enumerate(pack.buckets)},
        "splits": {split: _describe_split(pack, split) for split in SPLITS},
        "classes": _class_shares(pack, counts),
        "mask_encoding": pack.mask_encoding,
        "ignored": _ignored_share(pack, counts),
        "labels": _label_counts(pack),
        "label_kind": pack.label_kind,
        "split_rule": pack.split_rule,
        "duplicates": _duplicates(pack),
        "spacing_mm": _spacing_range(pack),
        "intensity": asdict(pack.intensity),
    }


def _describe_split(pack: Pack, split: str) -> dict[str, int]:
    rows = pack.select(split)
    return {
        "slices": len(rows),
        "annotated_slices": int(pack.index.annotated[rows].sum()),
        "subjects": len(np.unique(pack.index.subject[rows])),
        "volumes": len(np.unique(pack.index.volume[rows])),
    }


def _mask_counts(pack: Pack) -> Array:
    """Return how many pixels of all masks hold each of the 256 values."""
    counts = np.zeros(256, np.int64)
    for row in np.flatnonzero(pack.index.mask_position >= 0).tolist():
        counts += np.bincount(pack.mask(row).ravel(), minlength=256)
    return counts


def _class_shares(pack: Pack, counts: Array) -> dict[str, float]:
    """Return class name -> share of the pixels of all masks that are not ignored; overlapping ones sum to above 1."""
    kept = counts.copy()
    if pack.ignore_label is not None:
        kept[pack.ignore_label] = 0
    total = max(1, int(kept.sum()))
    if pack.mask_encoding == "index":
        return {name: float(kept[code] / total) for code, name in enumerate(pack.class_names)}
    values = np.arange(256)
    inside = [values == 0, *((values >> bit & 1).astype(bool) for bit in range(len(pack.class_names) - 1))]
    return {name: float(kept[chosen].sum() / total) for name, chosen in zip(pack.class_names, inside, strict=True)}


def _ignored_share(pack: Pack, counts: Array) -> float:
    return 0.0 if pack.ignore_label is None else float(counts[pack.ignore_label] / max(1, int(counts.sum())))


def _label_counts(pack: Pack) -> dict[str, dict[str, Any]]:
    """Return label name -> what it was given to, and of how many of those it is known, and how."""
    found = {}
    for column, (name, scope) in enumerate(zip(pack.label_names, pack.label_scopes, strict=True)):
        values = pack.index.labels[:, column]
        if scope != "slice":
            values = values[np.unique(getattr(pack.index, scope), return_index=True)[1]]
        found[name] = {
            "of": f"{scope}s",
            "positive": int((values > 0.5).sum()),
            "negative": int((values == 0).sum()),
            "uncertain": int((values == UNCERTAIN).sum()),
            "unknown": int(np.isnan(values).sum()),
        }
    return found


def _duplicates(pack: Pack) -> dict[str, Any] | None:
    """Return how many images repeat others, and which lie in several splits; None where the pack does not know."""
    index = pack.index
    if not index.content.shape[1]:
        return None
    across, repeats = equal_images(index.content, index.split)
    examples = [[f"{index.volume[row]} ({index.split[row]})" for row in group] for group in across[:_LISTED_DUPLICATES]]
    return {"repeated_slices": repeats, "images_in_several_splits": len(across), "examples": examples}


def _spacing_range(pack: Pack) -> dict[str, list[float]] | None:
    """Return the smallest and largest distance of rows and of columns, or None where none is known."""
    known = pack.index.spacing_mm[np.isfinite(pack.index.spacing_mm).all(axis=1)]
    if not len(known):
        return None
    low, high = known.min(axis=0), known.max(axis=0)
    return {
        name: [round(float(low[axis]), 4), round(float(high[axis]), 4)] for axis, name in enumerate(("rows", "columns"))
    }
