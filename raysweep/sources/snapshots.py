"""Snapshots: the encoder of a pretrain stage at one epoch, as safetensors with what is needed to use it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from raysweep import zoo
from raysweep._version import __version__
from raysweep.errors import StoreError
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import Encoder, build_encoder
from raysweep.sources.fit import LoadReport, load_weights
from raysweep.sources.formats import read_tensors
from raysweep.sources.library import IMAGENET, read_metadata, read_stored_weights
from raysweep.store import Store

_log = logging.getLogger(__name__)
METADATA = "raysweep"
"""The one metadata key: safetensors orders several anew in every call, so that equal encoders would differ in bytes."""

RANDOM_NORMALISATION = Normalisation()
"""Input of an encoder that starts from random weights: the [0, 1] scale, roughly centred."""


Lineage = tuple[Mapping[str, Any], ...]
"""What an encoder has gone through, first to last: initial weights, then the snapshots that stages started from."""


@dataclass(frozen=True)
class Start:
    """An encoder to train on, and the input it expects."""

    encoder: Encoder
    normalisation: Normalisation
    report: LoadReport | None = None
    """What became of the keys of its initial weights; None for random weights and snapshots."""
    lineage: Lineage = ()

    @property
    def loading(self) -> str | None:
        """What became of the keys of its initial weights, as results record it: JSON without a machine's paths."""
        if self.report is None:
            return None
        return json.dumps({**self.report.to_json(), "name": None}, sort_keys=True)


def common_facts(
    backbone: Backbone, normalisation: Normalisation, stage: str, config: Mapping[str, Any], lineage: Lineage
) -> dict[str, Any]:
    """Return what snapshots and models carry alike: versions, architecture, input, configuration, lineage."""
    return {
        "version": __version__,
        "timm": timm.__version__,
        "torch": torch.__version__,
        "backbone": backbone.model_dump(mode="json"),
        "normalisation": normalisation.model_dump(mode="json"),
        "stage": stage,
        "config": config,
        "lineage": list(lineage),
    }


def write_snapshot(
    store: Store,
    stage: str,
    epoch: int,
    encoder: Encoder,
    normalisation: Normalisation,
    config: Mapping[str, Any],
    lineage: Lineage = (),
) -> None:
    """Publish an encoder with its architecture, input, epoch, lineage and the configuration of its stage."""
    facts = {**common_facts(encoder.backbone, normalisation, stage, config, lineage), "epoch": epoch}
    metadata = {METADATA: json.dumps(facts, sort_keys=True)}
    tensors = {key: value.detach().cpu().contiguous() for key, value in encoder.model.state_dict().items()}
    store.write_bytes(store.snapshot_path(stage, epoch), save_safetensors(tensors, metadata))


def snapshot_facts(store: Store, stage: str, epoch: int) -> dict[str, Any]:
    """Return a published snapshot's path, size and digest: columns of the snapshots table."""
    path = store.snapshot_path(stage, epoch)
    data = store.read_bytes(path) or b""
    return {"path": path, "size_bytes": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}


def read_snapshot(store: Store, stage: str, epoch: int) -> Start:
    """Rebuild the encoder of a snapshot.

    Raises:
        StoreError: if it is missing or corrupt.
    """
    path = store.snapshot_path(stage, epoch)
    data = store.read_bytes(path)
    if data is None:
        raise StoreError(f"snapshot {store.uri}/{path} is missing; delete ledger/{stage}.json to have it made again")
    try:
        tensors = load_safetensors(data)
        facts = json.loads(read_metadata(data)[METADATA])
        backbone = Backbone.model_validate(facts["backbone"])
        normalisation = Normalisation.model_validate(facts["normalisation"])
        encoder = build_encoder(backbone)
        encoder.model.load_state_dict(tensors, strict=True)
        lineage = (*facts.get("lineage", ()), _step(stage, epoch, facts["config"]))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreError(
            f"snapshot {store.uri}/{path} is corrupt: {error}. Delete it and ledger/{stage}.json to have it made again"
        ) from error
    return Start(encoder, normalisation, lineage=lineage)


def _step(stage: str, epoch: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a snapshot adds to the lineage of what starts from it."""
    method = config["method"]["name"] if "method" in config else None
    return {"stage": stage, "epoch": epoch, "method": method, "pack": config.get("pack")}


def build_start(store: Store, config: Mapping[str, Any], inputs: Mapping[str, str]) -> Start:
    """Build the encoder a stage starts from: random weights, a weights file, weights in the store, or a snapshot.

    Random weights come from torch's global generator, which the caller has seeded.

    Args:
        store: where snapshots and stored weights are.
        config: configuration of the stage, with ``backbone`` and ``start``.
        inputs: where weights are: ``weights`` names a file, ``zoo`` weights of the zoo in the store.
    """
    start = config["start"]
    if "stage" in start:
        return read_snapshot(store, start["stage"], start["epoch"])
    encoder = build_encoder(Backbone.model_validate(config["backbone"]))
    if "weights" not in start:
        return Start(encoder, RANDOM_NORMALISATION, lineage=({"random": True},))
    prefix = start.get("prefix")
    if name := inputs.get("zoo"):
        (state, normalisation), prefix = read_stored_weights(store, name), None  # its prefix is gone already
    elif name := inputs.get("weights"):
        state, normalisation = read_tensors(name), IMAGENET
    else:
        name = start["weights"]
        state, normalisation = read_stored_weights(store, name)
    report = load_weights(encoder, state, name=name, prefix=prefix)
    _log.info("%s", report)
    if "normalisation" in start:
        normalisation = Normalisation.model_validate(start["normalisation"])
    origin = {**start, "loading": {**report.to_json(), "name": name if name in zoo.weights() else None}}
    return Start(encoder, normalisation.for_channels(encoder.backbone.channels), report, (origin,))
