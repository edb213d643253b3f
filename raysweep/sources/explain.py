"""What weights that do not fit look like: the nearest architecture, and what sets them apart from the one asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import timm
import torch
from torch import Tensor

from raysweep.errors import WeightsError
from raysweep.settings import Backbone
from raysweep.sources.prefixes import HEADS, find_prefix, flat

_FAMILIES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        re.compile(r"\blayer\d\.\d"),
        (
            *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
            *("wide_resnet50_2", "resnext50_32x4d", "resnet50d", "seresnet50"),
        ),
    ),
    (re.compile(r"denseblock\d"), ("densenet121", "densenet169", "densenet201")),
    (re.compile(r"\bblocks\.\d+\.\d+\."), ("efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100")),
    (
        re.compile(r"\bstages[._]\d"),
        (*(f"convnext_{size}" for size in ("tiny", "small", "base")), "convnextv2_tiny", "convnextv2_base"),
    ),
    (
        re.compile(r"\blayers[._]\d.*attn"),
        tuple(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")),
    ),
    (
        re.compile(r"\bblocks\.\d+\.(attn|norm)"),
        (
            *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
            *(f"vit_{size}_patch14_dinov2" for size in ("small", "base")),
        ),
    ),
)
"""How keys of a family look, and the architectures of it that weights are compared with."""
_ALIKE = 0.9
_PARTIAL = 0.3
_COUNTER = "num_batches_tracked"
_DISPLAY = re.compile(r"^resnet(\d+)$")


@dataclass(frozen=True)
class _Resemblance:
    names: float
    """Share of keys that file and architecture have in common, of those of the one that has more."""
    shapes: float
    """The same, counting only keys of equal shape."""


def explanation(state: Mapping[str, Tensor], backbone: Backbone) -> str:
    """Return one sentence that says what weights look like that do not fit a backbone."""
    if _is_narrow_resnet(state):
        stages = _num_blocks(state)
        blocks = " + ".join(str(stages[stage]) for stage in sorted(stages))
        return (
            f"These keys look like a ResNet for 32-pixel images (three stages of {blocks} blocks, as for CIFAR-10); "
            f"the study asks for {_display(backbone.encoder)}, and timm has no such architecture."
        )
    own = _resemblance(state, backbone)
    names = [name for looks, family in _FAMILIES if any(map(looks.search, state)) for name in family]
    others = {name: _resemblance(state, Backbone(encoder=name, channels=3)) for name in (*names, backbone.encoder)}
    name, nearest = max(others.items(), key=lambda item: (item[1].shapes, item[1].names))
    asked, found = _display(backbone.encoder), _display(name)
    if nearest.shapes >= _ALIKE and nearest.shapes > own.shapes:
        return f"These keys look like {found} ({nearest.shapes:.0%} of keys and shapes); the study asks for {asked}."
    if own.names >= _ALIKE > own.shapes:
        return f"The names are those of {asked}, but the layers are wider or narrower."
    if own.shapes >= max(_PARTIAL, nearest.shapes):
        return f"The weights look like {asked}, but something is missing from them or stands beside them."
    if nearest.names >= _ALIKE:
        return f"The names are those of {found}, in another width; the study asks for {asked}."
    near = f"; of {len(others)} tried, {found} is nearest with {nearest.shapes:.0%}" if nearest.shapes > 0.1 else ""
    return f"They resemble no architecture known here{near}. Their first keys: {', '.join(list(state)[:3])}."


def _resemblance(state: Mapping[str, Tensor], backbone: Backbone) -> _Resemblance:
    shapes = _shapes(backbone.encoder, tuple(sorted((k, str(v)) for k, v in backbone.options.items())))
    prefix = _likeliest_prefix(state, shapes)
    inner = {key.removeprefix(prefix): value.shape for key, value in state.items() if key.startswith(prefix)}
    found = {flat(key): shape for key, shape in inner.items()}
    first = next((key for key, shape in shapes.items() if len(shape) == 4), None)
    named = equal = 0
    for key, shape in shapes.items():
        other = found.get(flat(key))
        named += other is not None
        # The first convolution may differ in its input channels.
        skip = 1 if key == first else None
        equal += other is not None and _but(other, skip) == _but(shape, skip)
    total = max(len(shapes), sum(not HEADS.match(key) and not key.endswith(_COUNTER) for key in inner))
    return _Resemblance(named / total, equal / total)


def _likeliest_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> str:
    """Return the prefix of the likeliest encoder, without minding that several are equally likely."""
    try:
        return find_prefix(state, wanted)
    except WeightsError:
        return ""


def _but(shape: torch.Size, skipped: int | None) -> list[int]:
    return [size for axis, size in enumerate(shape) if axis != skipped]


@cache
def _shapes(name: str, _options: tuple[tuple[str, str], ...]) -> dict[str, torch.Size]:
    """Return keys and shapes of an architecture without its classifier; nothing is allocated."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    state = model.state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith(_COUNTER)}


def _num_blocks(state: Mapping[str, Tensor]) -> dict[int, int]:
    blocks: dict[int, set[str]] = {}
    for key in state:
        if match := re.search(r"\blayer(\d)\.(\d+)\.", key):
            blocks.setdefault(int(match[1]), set()).add(match[2])
    return {stage: len(found) for stage, found in blocks.items()}


def _is_narrow_resnet(state: Mapping[str, Tensor]) -> bool:
    stem = next((value for key, value in state.items() if re.search(r"\bconv1\.weight$", key)), None)
    return set(_num_blocks(state)) == {1, 2, 3} and stem is not None and stem.shape[-1] == 3


def _display(name: str) -> str:
    """Return an architecture as papers write it, where that is another spelling."""
    match = _DISPLAY.match(name)
    return f"ResNet-{match[1]}" if match else name
