"""Finding what to export: a cell by its name, or a stage by its id, in the store's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from raysweep.errors import StoreError, did_you_mean
from raysweep.results.query import query_store
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import Encoder, build_encoder
from raysweep.sources.fit import load_weights
from raysweep.sources.models import StoredModel, read_model
from raysweep.sources.snapshots import read_snapshot
from raysweep.store import Store

_MIN_PREFIX = 6


@dataclass(frozen=True)
class Found:
    """A trained encoder, and the whole network around it where it was fine-tuned."""

    stage: str
    backbone: Backbone
    normalisation: Normalisation
    network: StoredModel | None
    """The network of a finetune stage; None for the snapshot of a pretrain stage."""
    epoch: int | None
    """Epoch of the snapshot; None for a finetune stage, whose network is that of its best epoch."""
    snapshot: Encoder | None

    def encoder(self) -> Encoder:
        """Return the encoder.

        Raises:
            WeightsError: if the network does not hold all of it, as a U-Net of fewer levels does not.
        """
        if self.snapshot is not None:
            return self.snapshot
        encoder = build_encoder(self.backbone)
        tensors: Mapping[str, Tensor] = {} if self.network is None else self.network.tensors
        load_weights(encoder, tensors, name=f"of stage {self.stage}")
        return encoder

    def facts(self) -> dict[str, Any]:
        """Return where the weights come from, for the file's own metadata."""
        return {"stage": self.stage, "epoch": self.epoch}


def find_trained(store: Store, what: str, epoch: int | None = None) -> Found:
    """Return what a cell's or a stage's training left in the store.

    Args:
        store: the store.
        what: name of a cell, or id of a stage, whole or its first characters.
        epoch: epoch of a pretrain stage's snapshot; by default the last one.

    Raises:
        StoreError: if there is no such cell or stage, it is not done, or its network was not kept.
    """
    stage = _stage_of(store, what)
    record = store.ledger_record(stage)
    if record is None or record.status != "done":
        state = "has not been run" if record is None else f"{record.status}: {record.error or 'before its last epoch'}"
        raise StoreError(f"{what} (stage {stage}) {state}; there is nothing to export")
    epochs = store.snapshot_epochs(stage)
    if epochs:
        chosen = epochs[-1] if epoch is None else epoch
        if chosen not in epochs:
            raise StoreError(f"stage {stage} has no snapshot of epoch {chosen}; it has {', '.join(map(str, epochs))}")
        start = read_snapshot(store, stage, chosen)
        return Found(stage, start.encoder.backbone, start.normalisation, None, chosen, start.encoder)
    model = read_model(store, stage)
    if model is None:
        raise StoreError(
            f"the network of {what} was not kept. `raysweep run STUDY --set keep_models=true` runs its finetune stages "
            "again and keeps their networks; narrow the grid with --set to run only some"
        )
    return Found(stage, model.backbone, model.normalisation, model, None, None)


def _stage_of(store: Store, what: str) -> str:
    cells = query_store(store, "SELECT study, cell, stage FROM cells ORDER BY ALL").to_pylist()
    named = {row["stage"] for row in cells if what in (row["cell"], f"{row['study']}:{row['cell']}")}
    if len(named) > 1:
        studies = [f"{row['study']}:{what}" for row in cells if row["cell"] == what]
        raise StoreError(f"several studies have a cell {what!r}; name one: {', '.join(studies)}")
    if named:
        return str(named.pop())
    stages: list[str] = sorted({*store.ledger(), *(row["stage"] for row in cells)})
    found = [stage for stage in stages if stage.startswith(what)] if len(what) >= _MIN_PREFIX else []
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(f"{len(found)} stages have ids that begin with {what!r}; give more characters")
    raise StoreError(
        f"store {store.uri} has no cell or stage {what!r}.{did_you_mean(what, [row['cell'] for row in cells])} "
        "`raysweep query 'SELECT cell, stage FROM cells'` lists them"
    )
