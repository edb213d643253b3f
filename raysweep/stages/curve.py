"""The curve of a stage that was stopped before its last epoch, published from its training state."""

from __future__ import annotations

import io
import json

from raysweep.planning import Stage
from raysweep.results.write import write_part
from raysweep.store import Store


def publish_curve(stage: Stage, store: Store, until_epoch: int) -> bool:
    """Publish a stage's epochs up to one of them; return whether it has a training state to take them from.

    A stage that has ended by itself in the meantime has none: its whole curve is published.
    """
    data = store.read_bytes(store.resume_path(stage.id))
    if data is None:
        return False
    import torch  # a worker has it; a test's stages do without

    saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    rows = [{"stage": stage.id, **row} for row in json.loads(saved["history"]["rows"]) if row["epoch"] <= until_epoch]
    write_part(store, "epochs", stage.id, rows)
    return True
