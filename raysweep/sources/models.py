"""Tested networks of finetune stages: weights with what is needed to rebuild and use them without raysweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from raysweep.errors import StoreError
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.library import read_metadata
from raysweep.sources.snapshots import METADATA, Start, common_facts
from raysweep.store import Store


@dataclass(frozen=True)
class StoredModel:
    """A network as it was tested."""

    tensors: Mapping[str, Tensor]
    backbone: Backbone
    normalisation: Normalisation
    facts: Mapping[str, Any]
    """Everything recorded with it."""


def write_model(
    store: Store, stage: str, network: nn.Module, start: Start, config: Mapping[str, Any], classes: Sequence[str]
) -> None:
    """Publish a tested network with its architecture, input, classes and lineage.

    Networks of segmentation-models-pytorch say themselves what they were built from.
    """
    built_from = getattr(network, "config", None)
    facts = {
        **common_facts(start.encoder.backbone, start.normalisation, stage, config, start.lineage),
        "classes": list(classes),
        "network": None if built_from is None else {"class": type(network).__name__, "options": dict(built_from)},
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {METADATA: json.dumps(facts, sort_keys=True)}
    store.write_bytes(store.model_path(stage), save_safetensors(tensors, metadata))


def read_model(store: Store, stage: str) -> StoredModel | None:
    """Read the network of a finetune stage; None if the store has none.

    Raises:
        StoreError: if it is corrupt.
    """
    path = store.model_path(stage)
    data = store.read_bytes(path)
    if data is None:
        return None
    try:
        facts = json.loads(read_metadata(data)[METADATA])
        backbone = Backbone.model_validate(facts["backbone"])
        normalisation = Normalisation.model_validate(facts["normalisation"])
        return StoredModel(load_safetensors(data), backbone, normalisation, facts)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"model {store.uri}/{path} is corrupt: {error}. Delete it and ledger/{stage}.json to have it made again"
        ) from error
