"""Fitting weights to an encoder: completely, or not at all, and always with an account of every key."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from typing import Any

import timm
import torch
from torch import Tensor, nn

from raysweep.errors import WeightsError
from raysweep.settings import Backbone
from raysweep.sources.encoder import Encoder
from raysweep.sources.explain import explanation
from raysweep.sources.layouts import as_pytorch
from raysweep.sources.prefixes import HEADS, find_prefix, flat

_NUM_SHOWN = 3
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadReport:
    """What became of every key when weights were loaded."""

    name: str
    matched: int
    """Keys of the encoder that were found with their shape, or could be brought to it."""
    missing: tuple[str, ...] = ()
    """Keys of the encoder that the weights lack."""
    unexpected: tuple[str, ...] = ()
    """Keys beside the encoder's that are no head's."""
    misfits: tuple[str, ...] = ()
    """Keys whose shape is another, with both shapes."""
    adapted: tuple[str, ...] = ()
    """Keys whose input channels were changed."""
    reshaped: tuple[str, ...] = ()
    """Keys that were brought to the encoder's input size, such as position embeddings."""
    dropped: tuple[str, ...] = ()
    """Keys of heads, and of whatever else lies outside the encoder."""
    prefix: str = ""
    """What stood before the encoder's keys."""
    channels: str = ""
    """How input channels were changed, such as ``3 -> 1: summed``."""

    @property
    def is_complete(self) -> bool:
        """Whether every key of the encoder was loaded and nothing unknown was left over."""
        return not (self.missing or self.unexpected or self.misfits)

    def to_json(self) -> dict[str, Any]:
        """Return what the results and snapshots record of it."""
        values = {**asdict(self), "dropped": len(self.dropped)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def __str__(self) -> str:
        parts = [f"{self.matched} keys matched"]
        parts += [f"under {self.prefix!r}"] if self.prefix else []
        parts += [f"input channels {self.channels}"] if self.channels else []
        for what in ("missing", "unexpected", "misfits", "reshaped", "dropped"):
            keys = getattr(self, what)
            parts += [f"{len(keys)} {what} ({_shown(keys)})"] if keys else []
        return f"weights {self.name}: {', '.join(parts)}"


def load_weights(encoder: Encoder, state: Mapping[str, Tensor], *, name: str, prefix: str | None = None) -> LoadReport:
    """Load weights into an encoder: every key of the encoder must be found, with its shape.

    The published layout and the prefix are found (or given), heads dropped, timm's flattened feature-extractor names
    matched to plain ones, position embeddings resampled by timm, and a first convolution of other input channels
    adapted: 3 -> 1 by summing, 1 -> n by repeating and dividing by n.

    Raises:
        WeightsError: saying how many keys matched, which did not, and what the weights look like, unless all did. The
            encoder is then unchanged.
    """
    try:
        taken, report = fit_state(encoder.model.state_dict(), encoder.backbone, state, name=name, prefix=prefix)
    except WeightsError as error:
        raise WeightsError(f"weights {name}: {error}") from error
    if not report.is_complete:
        raise WeightsError(refusal(report, encoder.backbone, state))
    encoder.model.load_state_dict(taken, strict=True)
    return report


def fit_state(
    target: Mapping[str, Tensor],
    backbone: Backbone,
    state: Mapping[str, Tensor],
    *,
    name: str,
    prefix: str | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return what an encoder would take from weights, and the account of every key.

    Args:
        target: the encoder's own tensors by key; their values do not matter.
        backbone: what the encoder was built from.
        state: tensors by their path in the file.
        name: how messages call the weights.
        prefix: what stands before the encoder's keys; None to find it.

    Raises:
        WeightsError: if it cannot be told which of several networks in the file is meant, or a part of the weights has
            no place in the architecture.
    """
    named = as_pytorch(state)
    found_prefix = find_prefix(named, [_plain(key, target) for key in target], prefix)
    inner = {key.removeprefix(found_prefix): value for key, value in named.items() if key.startswith(found_prefix)}
    outside = tuple(key for key in named if not key.startswith(found_prefix))
    taken, report = _matched(target, inner, name, backbone)
    if not report.is_complete and (filtered := _filtered(backbone, inner)) is not None:
        again, second = _matched(target, filtered, name, backbone)
        if second.is_complete:
            changed = tuple(key for key, value in filtered.items() if key in inner and inner[key].shape != value.shape)
            taken, report = again, replace(second, reshaped=changed)
    return taken, replace(report, prefix=found_prefix, dropped=(*report.dropped, *outside))


def encoder_part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the encoder's tensors of a checkpoint with PyTorch's names: below a prefix, without heads."""
    named = as_pytorch(state)
    inner = {key.removeprefix(prefix): value for key, value in named.items() if key.startswith(prefix)}
    return {key: value.contiguous() for key, value in inner.items() if not HEADS.match(key)}


def _matched(
    target: Mapping[str, Tensor], source: Mapping[str, Tensor], name: str, backbone: Backbone
) -> tuple[dict[str, Tensor], LoadReport]:
    by_flat_name = {flat(key): key for key in source}
    first = next((key for key, value in target.items() if value.ndim == 4), None)
    taken: dict[str, Tensor] = {}
    used: set[str] = set()
    missing, misfits, adapted, channels, counters = [], [], [], "", 0
    for key, wanted in target.items():
        found = by_flat_name.get(flat(_plain(key, target)))
        if found is None:
            if key.endswith(_COUNTER):
                taken[key], counters = wanted, counters + 1
            else:
                missing.append(key)
            continue
        used.add(found)
        value = source[found]
        if key == first and _differs_in_channels(value, wanted):
            channels = _channel_change(value.shape[1], wanted.shape[1])
            value = with_channels(value, wanted.shape[1])
            adapted.append(key)
        if value.shape != wanted.shape:
            misfits.append(f"{key}: {tuple(value.shape)} in the file, {tuple(wanted.shape)} in the encoder")
            continue
        taken[key] = value
    unused = [key for key in source if key not in used]
    behind = keys_of_whole_model(backbone) if any(not HEADS.match(key) for key in unused) else set()
    unexpected = tuple(key for key in unused if not HEADS.match(key) and key not in behind)
    report = LoadReport(
        name=name,
        matched=len(taken) - counters,
        missing=tuple(missing),
        unexpected=unexpected,
        misfits=tuple(misfits),
        adapted=tuple(adapted),
        channels=channels,
        dropped=tuple(key for key in unused if key not in unexpected),
    )
    return taken, report


def _plain(key: str, target: Mapping[str, Tensor]) -> str:
    """Return an encoder's key without the wrapper that timm puts around some feature extractors."""
    return key.removeprefix("model.") if all(other.startswith("model.") for other in target) else key


def _filtered(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return weights as timm's own converter for the architecture leaves them; None if it has none, or they fail it.

    It knows older spellings of timm and of the original code, and resamples position embeddings.
    """
    convert = getattr(sys.modules.get(timm.model_entrypoint(backbone.encoder).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    model = _whole_model(backbone)
    kept = {key: value for key, value in state.items() if not HEADS.match(key)}
    try:
        with redirect_stdout(StringIO()):  # it prints what it tries
            converted: dict[str, Tensor] = convert(kept, model)
    except (RuntimeError, KeyError, AttributeError, ValueError, TypeError, IndexError):
        return None  # not the kind of weights it knows: what did not match stays the answer
    _refuse_lost_biases(backbone, kept, converted)
    return converted


def _refuse_lost_biases(backbone: Backbone, state: Mapping[str, Tensor], converted: Mapping[str, Tensor]) -> None:
    """Raise if biases of attention were left out that are not zero: timm's plain DINOv3 has none."""
    lost = [key for key, value in state.items() if key.endswith("qkv.bias") and bool(value.any())]
    if not lost or any(key.endswith(("qkv.bias", "q_bias", "q_proj.bias")) for key in converted):
        return
    other = f"{backbone.encoder}_qkvb"
    way_out = f": use encoder {other!r}" if timm.is_model(other) else ""
    raise WeightsError(f"{lost[0]} is not zero, and encoder {backbone.encoder!r} has no biases there{way_out}")


def _differs_in_channels(value: Tensor, wanted: Tensor) -> bool:
    """Whether two convolutions differ in their input channels and in nothing else."""
    if value.ndim != 4 or wanted.ndim != 4 or value.shape[1] == wanted.shape[1]:
        return False
    return value.shape[0] == wanted.shape[0] and value.shape[2:] == wanted.shape[2:]


def with_channels(value: Tensor, channels: int) -> Tensor:
    """Return a convolution for another number of input channels: summed, or spread so that a grey image gives the same.

    Args:
        value: (O, I, H, W).
        channels: input channels wanted.
    """
    summed = value.sum(1, keepdim=True)
    return summed if channels == 1 else (summed / channels).repeat(1, channels, 1, 1)


def _channel_change(found: int, wanted: int) -> str:
    how = "summed" if wanted == 1 else f"{'' if found == 1 else 'summed, '}repeated and divided by {wanted}"
    return f"{found} -> {wanted}: {how}"


def keys_of_whole_model(backbone: Backbone) -> set[str]:
    """Keys of the classification model without its classifier: what lies behind the last feature map is a head too."""
    return set(_whole_model(backbone).state_dict())


def _whole_model(backbone: Backbone) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(
            backbone.encoder, num_classes=0, in_chans=backbone.channels, **backbone.options
        )
    return model


def refusal(report: LoadReport, backbone: Backbone, state: Mapping[str, Tensor]) -> str:
    """Return why weights do not fit: how many keys matched, which did not, and what the weights look like."""
    total = report.matched + len(report.missing) + len(report.misfits)
    lines = [
        f"weights {report.name} do not fit encoder {backbone.encoder!r}: {report.matched} of its {total} keys matched"
    ]
    for what, keys in (
        ("missing", report.missing),
        ("of another shape", report.misfits),
        ("not in the encoder", report.unexpected),
    ):
        if keys:
            lines.append(f"  {what}: {_shown(keys)}")
    lines.append(f"  {explanation(as_pytorch(state), backbone)}")
    lines.append("  Use weights of this architecture, or name the architecture they belong to under backbones.")
    return "\n".join(lines)


def _shown(keys: tuple[str, ...]) -> str:
    more = f", ... ({len(keys)} in all)" if len(keys) > _NUM_SHOWN else ""
    return f"{', '.join(keys[:_NUM_SHOWN])}{more}"
