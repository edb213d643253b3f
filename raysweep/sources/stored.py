"""What the store's weights folder holds: one safetensors file and one record for each name. No torch here.

The folder can be prefilled on a machine with a network and copied to a cluster without one; no stage downloads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from raysweep.errors import StoreError
from raysweep.identity import file_digest
from raysweep.store import Store


@dataclass(frozen=True)
class WeightsRecord:
    """What is known of weights in the store."""

    name: str
    architecture: str
    digest: str
    """``sha256:<hex>`` over the file as it was published; over the digests of its parts where there are several."""
    size_bytes: int
    """Size of the file as it was published."""
    origin: str
    """Where it came from: an address, or the path of a file."""
    num_tensors: int
    prefix: str = ""
    """What stood before the encoder's keys."""
    dropped: int = 0
    """Tensors left out: heads, and whatever else stood beside the encoder."""


def weights_path(name: str) -> str:
    """Path, below the store's root, of weights by name."""
    return f"weights/{name}.safetensors"


def record_path(name: str) -> str:
    """Path, below the store's root, of what is known of them."""
    return f"weights/{name}.json"


def stored_names(store: Store) -> list[str]:
    """Return the names of all weights in the store, sorted."""
    paths = store.list("weights")
    return sorted(
        path[len("weights/") :].removesuffix(".safetensors") for path in paths if path.endswith(".safetensors")
    )


def read_record(store: Store, name: str) -> WeightsRecord | None:
    """Return what is known of stored weights; None where they were laid there by hand, or are not there.

    Raises:
        StoreError: if the record is corrupt.
    """
    data = store.read_bytes(record_path(name))
    if data is None:
        return None
    try:
        return WeightsRecord(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{store.uri}/{record_path(name)} is corrupt ({error}); delete it and {weights_path(name)}, and get the "
            f"weights again: raysweep weights fetch {name}"
        ) from error


def write_record(store: Store, record: WeightsRecord) -> None:
    """Publish what is known of stored weights."""
    store.write_bytes(record_path(record.name), json.dumps(asdict(record), indent=1, sort_keys=True).encode())


def published_digest(files: Sequence[Path]) -> str:
    """Return the digest of a checkpoint as it was published: its file's, or that over the digests of its parts."""
    digests = sorted(file_digest(file) for file in files)
    if len(digests) == 1:
        return digests[0]
    return f"sha256:{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()}"
