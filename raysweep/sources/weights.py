"""Initial weights: reading files that cannot run code, and fitting them to an encoder completely or not at all."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from raysweep.errors import StoreError, WeightsError
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import Encoder
from raysweep.store import Store

IMAGENET_GREY = Normalisation(mean=0.449, std=0.226)
"""ImageNet's channel means and standard deviations, averaged: what one summed channel sees."""

_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "target_backbone")
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "module.encoder_q.", "momentum_backbone.")
_HEADS = re.compile(r"^(fc|head|heads|classifier|last_linear|projection_head|projector|predictor|prototypes|linear)\b")
_NUM_SHOWN = 3
_MAX_WRAPPERS = 4
UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What torch's restricted unpickler raises on files that are corrupt, or that are no checkpoint at all."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every key when weights were loaded."""

    matched: int
    adapted: tuple[str, ...]
    """Keys whose input channels were changed."""
    dropped: tuple[str, ...]
    """Keys of heads that the encoder does not have."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or a PyTorch checkpoint; nothing in the file is executed.

    Raises:
        WeightsError: if the file is missing, corrupt, or holds anything but tensors.
    """
    file = Path(path)
    try:
        if file.suffix == ".safetensors":
            return load_safetensors(file.read_bytes())
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"weights file {file} cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"weights file {file} is not a safe checkpoint: {first} Convert it to a plain state dict of tensors, "
            "or to safetensors, with the tool that wrote it."
        ) from error
    return _unwrapped(content, file)


def load_weights(encoder: Encoder, state: Mapping[str, Tensor], *, name: str) -> LoadReport:
    """Load weights into an encoder: every key of the encoder must be found, with its shape.

    A prefix that all keys share is removed, timm's flattened feature-extractor names are matched to plain ones, and a
    first convolution of other input channels is adapted: 3 -> 1 by summing, 1 -> n by repeating and dividing by n.

    Raises:
        WeightsError: saying how many keys matched and which did not, unless all did.
    """
    target = encoder.model.state_dict()
    source = _without_prefix(state, target)
    by_flat_name = {key.replace(".", "_"): key for key in source}
    first = next((key for key, value in target.items() if value.ndim == 4), None)
    taken: dict[str, Tensor] = {}
    used: set[str] = set()
    adapted, missing, reshaped, counters = [], [], [], 0
    for key, wanted in target.items():
        found = by_flat_name.get(key.replace(".", "_"))
        if found is None:
            if key.endswith("num_batches_tracked"):
                taken[key] = wanted
                counters += 1
            else:
                missing.append(key)
            continue
        used.add(found)
        value = source[found]
        if key == first and _differs_in_channels(value, wanted):
            value = _with_channels(value, wanted.shape[1])
            adapted.append(key)
        if value.shape != wanted.shape:
            reshaped.append(f"{key}: {tuple(value.shape)} in the file, {tuple(wanted.shape)} in the encoder")
            continue
        taken[key] = value
    unexpected = [key for key in source if key not in used and not _HEADS.match(key)]
    if unexpected:
        behind = _keys_of_whole_model(encoder.backbone)
        unexpected = [key for key in unexpected if key not in behind]
    if missing or reshaped or unexpected:
        raise WeightsError(
            _refusal(
                name, encoder.backbone, len(target) - counters, len(taken) - counters, missing, reshaped, unexpected
            )
        )
    encoder.model.load_state_dict(taken, strict=True)
    return LoadReport(len(taken) - counters, tuple(adapted), tuple(key for key in source if key not in used))


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


def _unwrapped(content: object, file: Path) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint: wrappers come first, for tensors beside one are no weights."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
            keys = ", ".join(map(str, list(content)[:8]))
            raise WeightsError(
                f"weights file {file} holds no state dict: its keys are {keys}. Known: {', '.join(_WRAPPERS)}."
            )
        content = inner
    raise WeightsError(f"weights file {file} holds a {type(content).__name__}; a state dict of tensors was expected")


def _without_prefix(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix, alone or twice, under which most of the encoder's keys are found."""
    wanted = {key.replace(".", "_") for key in target}
    best = dict(state)
    for prefix in _PREFIXES:
        for repeated in (prefix, prefix * 2):
            inner = {key.removeprefix(repeated): value for key, value in state.items() if key.startswith(repeated)}
            if _overlap(inner, wanted) > _overlap(best, wanted):
                best = inner
    return best


def _overlap(state: Mapping[str, Tensor], wanted: set[str]) -> int:
    return sum(key.replace(".", "_") in wanted for key in state)


def _differs_in_channels(value: Tensor, wanted: Tensor) -> bool:
    """Whether two convolutions differ in their input channels and in nothing else."""
    if value.ndim != 4 or wanted.ndim != 4 or value.shape[1] == wanted.shape[1]:
        return False
    return value.shape[0] == wanted.shape[0] and value.shape[2:] == wanted.shape[2:]


def _with_channels(value: Tensor, channels: int) -> Tensor:
    summed = value.sum(1, keepdim=True)
    return summed if channels == 1 else (summed / channels).repeat(1, channels, 1, 1)


def _keys_of_whole_model(backbone: Backbone) -> set[str]:
    """Keys of the classification model without its classifier: what lies behind the last feature map is a head too."""
    with torch.device("meta"):
        model = timm.create_model(backbone.encoder, num_classes=0, in_chans=backbone.channels, **backbone.options)
    return set(model.state_dict())


def _refusal(
    name: str,
    backbone: Backbone,
    total: int,
    matched: int,
    missing: list[str],
    reshaped: list[str],
    unexpected: list[str],
) -> str:
    lines = [f"weights {name} do not fit encoder {backbone.encoder!r}: {matched} of its {total} keys matched"]
    for what, keys in (("missing", missing), ("of another shape", reshaped), ("not in the encoder", unexpected)):
        if keys:
            more = f", ... ({len(keys)} in all)" if len(keys) > _NUM_SHOWN else ""
            lines.append(f"  {what}: {', '.join(keys[:_NUM_SHOWN])}{more}")
    lines.append("  Use weights of this architecture, or name the architecture they belong to under backbones.")
    return "\n".join(lines)
