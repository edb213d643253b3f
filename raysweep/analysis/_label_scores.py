"""Subject scores of classifications: the jackknife's pseudo-values of the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysweep.metrics.jackknife import auc_without_each, pseudo_values
from raysweep.metrics.labels import roc_auc


def auc_by_subject(cases: pa.Table, stages: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the id of every stage of ``stages`` that has subject scores, with subject -> score.

    Their mean is the stage's mean area under the ROC curve over its scored labels; ``metrics.jackknife`` says what they
    are. A stage has none with fewer than two subjects, or where all cases that have (or lack) a label are one
    subject's, without whom that label would have no area.
    """
    known = pc.and_(pc.is_valid(cases["probability"]), pc.is_valid(cases["target"]))
    rows = cases.filter(pc.and_(pc.fill_null(cases["scored"], False), known))
    rows = rows.filter(pc.is_in(rows["stage"], value_set=pa.array(stages, pa.string()))).sort_by("stage")
    names = rows["stage"].to_numpy(zero_copy_only=False)
    borders = np.flatnonzero(names[1:] != names[:-1]) + 1
    for first, last in zip([0, *borders], [*borders, len(names)], strict=True):
        found = _of_stage(rows.slice(first, last - first)) if last > first else None
        if found is not None:
            yield str(names[first]), found


def _of_stage(rows: pa.Table) -> dict[str, float] | None:
    probability, target, label = (_numbers(rows, name) for name in ("probability", "target", "class_index"))
    named = rows["subject"].combine_chunks().cast(pa.string()).dictionary_encode()
    subjects, codes = named.dictionary.to_pylist(), named.indices.to_numpy(zero_copy_only=False)
    if len(subjects) < 2:
        return None
    areas, without_each = [], []
    for index in np.unique(label):
        mine = label == index
        area = roc_auc(probability[mine], target[mine])
        if np.isnan(area):
            continue  # the stage's score leaves this label out, and its notes say so
        areas.append(area)
        without_each.append(auc_without_each(probability[mine], target[mine] > 0.5, codes[mine], len(subjects)))
    if not areas or not np.isfinite(without_each).all():
        return None
    values = pseudo_values(float(np.mean(areas)), np.mean(without_each, axis=0))
    return dict(zip(subjects, values.tolist(), strict=True))


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = rows[name].to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers
