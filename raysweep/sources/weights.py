"""Weights that the store keeps: fetched once, before anything runs, so that no stage ever downloads."""

from __future__ import annotations

import json

import timm
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from raysweep.errors import StoreError, WeightsError
from raysweep.settings import Normalisation
from raysweep.store import Store

IMAGENET_GREY = Normalisation(mean=0.449, std=0.226)
"""ImageNet's channel means and standard deviations, averaged: what one summed channel sees."""


def store_timm_weights(store: Store, name: str) -> None:
    """Fetch timm's pretrained weights into the store, once, so that no stage ever downloads.

    Raises:
        WeightsError: if timm does not know the name, or the download fails.
    """
    path = weights_path(name)
    if store.exists(path):
        return
    if not timm.is_model_pretrained(name):
        raise WeightsError(
            f"timm {timm.__version__} has no pretrained weights named {name!r}; see timm.list_pretrained()"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"weights {name!r} could not be downloaded: {error}. Where there is no network, put a safetensors file of "
            f"the model's state dict at {store.uri}/{path}."
        ) from error
    metadata = {"normalisation": _normalisation_of(name).model_dump_json()}
    store.write_bytes(path, save_safetensors(model.state_dict(), metadata))


def read_stored_weights(store: Store, name: str) -> tuple[dict[str, Tensor], Normalisation]:
    """Read weights that the store keeps under a timm name, and the input they were trained on.

    Raises:
        StoreError: if the store does not have them.
        WeightsError: if they are corrupt.
    """
    path = weights_path(name)
    data = store.read_bytes(path)
    if data is None:
        raise StoreError(f"store {store.uri} has no {path}: `raysweep run` fetches it before any stage starts")
    try:
        tensors, recorded = load_safetensors(data), read_metadata(data).get("normalisation")
        normalisation = Normalisation.model_validate_json(recorded) if recorded else _normalisation_of(name)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{store.uri}/{path} is corrupt: {error}. Delete it to have it fetched again.") from error
    return tensors, normalisation


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that has been found whole."""
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header.get("__metadata__", {})


def _normalisation_of(name: str) -> Normalisation:
    """Return the input timm records for a name, averaged over its channels; ImageNet's where it records none."""
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return IMAGENET_GREY
    return Normalisation(mean=sum(config.mean) / len(config.mean), std=sum(config.std) / len(config.std))


def weights_path(name: str) -> str:
    """Path, below the store's root, of weights with a timm name."""
    return f"weights/{name}.safetensors"
