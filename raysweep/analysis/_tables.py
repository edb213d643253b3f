"""Tables of answers: the columns they share, and NaN as null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

ARM = {
    "source": pa.string(),
    "method": pa.string(),
    "pretrain_epochs": pa.int64(),
    "arm": pa.string(),
}
SETTING = {"task": pa.string(), "backbone": pa.string(), "tuning": pa.string()}
AXES = {**SETTING, **ARM, "annotations": pa.int64()}


def answer_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Return rows as a table of ``columns``; NaN and absent keys become null, other keys are left out."""
    arrays = [pa.array([_null(row.get(name)) for row in rows], type=kind) for name, kind in columns.items()]
    return pa.Table.from_arrays(arrays, schema=pa.schema(list(columns.items())))


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
