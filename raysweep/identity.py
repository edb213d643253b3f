"""Content identity: canonical JSON and hashes over everything that determines a result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ID_CHARS = 32
"""Length of an id in hexadecimal characters: 128 bits, so that two stages never share one by chance."""

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no white space, shortest float form.

    Raises:
        TypeError: for values without a stable identity (sets, objects, bytes, non-string keys).
        ValueError: for NaN and infinities, which JSON cannot hold.
    """
    _check(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: Any) -> str:
    """Return the id of a JSON-like value: the first 128 bits of SHA-256 over its canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_CHARS]


def file_digest(path: str | Path) -> str:
    """Return ``sha256:<hex>`` over a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _check(value: Any, where: str) -> None:
    if value is None or isinstance(value, (str, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: identities take finite numbers only")
        return
    if isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check(item, f"{where}[{position}]")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: identities take string keys only")
            _check(item, f"{where}.{key}")
        return
    raise TypeError(
        f"{where} is a {type(value).__name__}, which has no stable identity; "
        "use strings, numbers, booleans, lists and mappings"
    )
