"""Published layouts that name their tensors unlike PyTorch: haiku, TensorFlow, lists of layers, transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raysweep.errors import WeightsError

State = dict[str, Tensor]

_BLOCKS = {53: (3, 4, 6, 3), 104: (3, 4, 23, 3), 155: (3, 8, 36, 3)}
"""Convolutions of a ResNet-50, 101 and 152 with a projection in each stage's first block, and their blocks by stage."""

_HAIKU = re.compile(
    r"(?P<root>.*?)(?P<net>res_net\w*)/~/"
    r"(?:initial_(?P<initial>conv|batchnorm)(?:_1)?"
    r"|block_group_(?P<stage>\d+)/~/block_(?P<block>\d+)/~/"
    r"(?:(?P<shortcut>shortcut_)(?P<short_kind>conv|batchnorm)|(?P<kind>conv|batchnorm)_(?P<number>\d+)))"
    r"(?:/~/(?P<statistic>mean|var)_ema)?\.(?P<leaf>w|scale|offset|average)"
)
_HAIKU_LEAVES = {"w": "weight", "scale": "weight", "offset": "bias"}
_SIMCLR = re.compile(r"base_model/(?P<kind>conv2d|batch_normalization)(?:_(?P<number>\d+))?/(?P<leaf>\w+)")
_TENSORFLOW_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Positions of a torchvision ResNet's children where code wraps them as ``Sequential(*resnet.children())``."""
_DINOV2 = (
    (re.compile(r"^embeddings\.(cls_token|mask_token)$"), r"\1"),
    (re.compile(r"^embeddings\.position_embeddings$"), "pos_embed"),
    (re.compile(r"^embeddings\.register_tokens$"), "reg_token"),
    (re.compile(r"^embeddings\.patch_embeddings\.projection\."), "patch_embed.proj."),
    (re.compile(r"^encoder\.layer\.(\d+)\.attention\.output\.dense\."), r"blocks.\1.attn.proj."),
    (re.compile(r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$"), r"blocks.\1.ls\2.gamma"),
    (re.compile(r"^encoder\.layer\.(\d+)\."), r"blocks.\1."),
    (re.compile(r"^layernorm\."), "norm."),
)
_DINOV3 = (
    (re.compile(r"^embeddings\.(cls_token|mask_token)$"), r"\1"),
    (re.compile(r"^embeddings\.register_tokens$"), "storage_tokens"),
    (re.compile(r"^embeddings\.patch_embeddings\."), "patch_embed.proj."),
    (re.compile(r"^(?:model\.)?layer\.(\d+)\."), r"blocks.\1."),
    (re.compile(r"\.attention\.o_proj\."), ".attn.proj."),
    (re.compile(r"\.layer_scale([12])\.lambda1$"), r".ls\1.gamma"),
)
_MLP = {
    False: ((re.compile(r"\.mlp\.up_proj\."), ".mlp.fc1."), (re.compile(r"\.mlp\.down_proj\."), ".mlp.fc2.")),
    True: (
        (re.compile(r"\.mlp\.gate_proj\."), ".mlp.w1."),
        (re.compile(r"\.mlp\.up_proj\."), ".mlp.w2."),
        (re.compile(r"\.mlp\.down_proj\."), ".mlp.w3."),
    ),
}
"""Layers between attentions, without and with a gate."""
_SEPARATE = re.compile(r"(?P<block>blocks\.\d+)\.attention\.(?P<part>[qkv])_proj\.(?P<leaf>weight|bias)")
_QKV = re.compile(r"(?P<block>.*blocks\.\d+)\.attention\.attention\.(?P<part>query|key|value)\.(?P<leaf>weight|bias)")


def as_pytorch(state: Mapping[str, Tensor]) -> State:
    """Return a state with the names PyTorch code gives it, whichever published layout it came in.

    Raises:
        WeightsError: if a layout is recognised and yet not that of a network timm has.
    """
    for is_layout, convert in _LAYOUTS:
        if is_layout(state):
            return convert(state)
    return dict(state)


def _is_haiku(state: Mapping[str, Tensor]) -> bool:
    return any(_HAIKU.fullmatch(key) for key in state)


def _from_haiku(state: Mapping[str, Tensor]) -> State:
    """Convert haiku's ResNet, as BYOL publishes it: convolutions HWIO, normalisation (1, 1, 1, C).

    Names keep what stands before the network's, such as ``experiment_state.online_params``, up to its last part.

    Source: haiku.nets.ResNet; layout of deepmind-research/byol.
    """
    converted: State = {}
    for key, value in state.items():
        if match := _HAIKU.fullmatch(key):
            root = _without_kind(match["root"])
            converted[f"{root}{_haiku_name(match)}"] = _as_pytorch_tensor(value)
    return converted


def _without_kind(root: str) -> str:
    """Join parameters and statistics of one network: ``online_params`` and ``online_state`` become ``online``."""
    return re.sub(r"(\w+?)_(?:params|state)\.(?:_\w+\.)*$", r"\1.", root)


def _haiku_name(match: re.Match[str]) -> str:
    if match["initial"]:
        module = "conv1" if match["initial"] == "conv" else "bn1"
    else:
        block = f"layer{int(match['stage']) + 1}.{match['block']}"
        if match["shortcut"]:
            module = f"{block}.downsample.{0 if match['short_kind'] == 'conv' else 1}"
        else:
            module = f"{block}.{'conv' if match['kind'] == 'conv' else 'bn'}{int(match['number']) + 1}"
    leaf = f"running_{match['statistic']}" if match["statistic"] else _HAIKU_LEAVES[match["leaf"]]
    return f"{module}.{leaf}"


def _as_pytorch_tensor(value: Tensor) -> Tensor:
    """Turn a (H, W, I, O) convolution into (O, I, H, W), and a (1, 1, 1, C) vector into (C,)."""
    if value.ndim == 4 and value.shape[:3] != (1, 1, 1):
        return value.permute(3, 2, 0, 1).contiguous()
    # A 1 x 1 convolution of one input channel cannot occur in a ResNet: this is normalisation.
    return value.reshape(-1) if value.ndim != 2 else value.t().contiguous()


def _is_simclr(state: Mapping[str, Tensor]) -> bool:
    return any(_SIMCLR.search(key) for key in state)


def _from_simclr(state: Mapping[str, Tensor]) -> State:
    """Convert SimCLR's TensorFlow ResNet, whose layers are numbered in the order in which they run.

    The projection of a stage's first block runs before its three convolutions. Moving averages (``ema_model/``) and
    optimiser slots stay out.

    Source: google-research/simclr, resnet.py.
    """
    modules: dict[str, dict[int, State]] = {"conv2d": {}, "batch_normalization": {}}
    for key, value in state.items():
        if (match := _SIMCLR.fullmatch(key)) and match["leaf"] in _TENSORFLOW_LEAVES:
            module = modules[match["kind"]].setdefault(int(match["number"] or 0), {})
            module[_TENSORFLOW_LEAVES[match["leaf"]]] = _as_pytorch_tensor(value)
    num_convolutions = len(modules["conv2d"])
    if num_convolutions not in _BLOCKS:
        raise WeightsError(
            f"the TensorFlow checkpoint has {num_convolutions} convolutions; a ResNet-50, 101 or 152 has "
            f"{', '.join(map(str, _BLOCKS))}. SimCLR v2's selective-kernel networks (sk1) have no timm architecture: "
            "use the plain ones (sk0)."
        )
    converted: State = {}
    names = _names_in_order(_BLOCKS[num_convolutions])
    for kind, position in (("conv2d", 0), ("batch_normalization", 1)):
        for pair, number in zip(names, sorted(modules[kind]), strict=True):
            converted.update({f"{pair[position]}.{leaf}": value for leaf, value in modules[kind][number].items()})
    return converted


def _names_in_order(blocks: tuple[int, ...]) -> list[tuple[str, str]]:
    """Return names of convolution and normalisation in the order in which a bottleneck ResNet runs them."""
    names = [("conv1", "bn1")]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            where = f"layer{stage}.{block}"
            names += [(f"{where}.downsample.0", f"{where}.downsample.1")] if block == 0 else []
            names += [(f"{where}.conv{number}", f"{where}.bn{number}") for number in (1, 2, 3)]
    return names


def _child_root(state: Mapping[str, Tensor]) -> str | None:
    """Return what stands before the numbered children of a ResNet, or None if there are none."""
    for key in state:
        root, found, _ = key.partition("4.0.conv1.weight")
        if found and f"{root}0.weight" in state and f"{root}1.running_mean" in state:
            return root
    return None


def _from_children(state: Mapping[str, Tensor]) -> State:
    """Name the children of a ResNet that code wrapped as ``Sequential(*resnet.children())``, as RadImageNet did."""
    root = _child_root(state) or ""
    converted: State = {}
    for key, value in state.items():
        number, dot, rest = key.removeprefix(root).partition(".")
        is_child = key.startswith(root) and number in _CHILDREN
        converted[f"{root}{_CHILDREN[number]}{dot}{rest}" if is_child else key] = value
    return converted


def _is_dinov2(state: Mapping[str, Tensor]) -> bool:
    return any(key.endswith("embeddings.patch_embeddings.projection.weight") for key in state) and any(
        ".layer_scale1.lambda1" in key for key in state
    )


def _from_dinov2(state: Mapping[str, Tensor]) -> State:
    """Convert the DINOv2 vision transformer of the transformers library, as RAD-DINO publishes it."""
    return _renamed(state, "embeddings.patch_embeddings.projection.weight", _DINOV2, _QKV, ("query", "key", "value"))


def _is_dinov3(state: Mapping[str, Tensor]) -> bool:
    return any(key.endswith("embeddings.register_tokens") for key in state) and any(
        key.endswith(".attention.o_proj.weight") for key in state
    )


def _from_dinov3(state: Mapping[str, Tensor]) -> State:
    """Convert the DINOv3 vision transformer of the transformers library to the names of its original code.

    Source: modeling_dinov3_vit of transformers 4.56 and 5; facebookresearch/dinov3.
    """
    mlp = _MLP[any(".mlp.gate_proj." in key for key in state)]
    return _renamed(state, "embeddings.register_tokens", _DINOV3 + mlp, _SEPARATE, ("q", "k", "v"))


def _renamed(
    state: Mapping[str, Tensor],
    landmark: str,
    patterns: tuple[tuple[re.Pattern[str], str], ...],
    separate: re.Pattern[str],
    parts: tuple[str, str, str],
) -> State:
    """Rename a transformer's tensors, and join what it has apart for queries, keys and values.

    Args:
        state: tensors by name.
        landmark: a name that it has; what stands before it is cut off all names.
        patterns: what to replace, one after another.
        separate: matches renamed tensors to join, with ``block``, ``part`` and ``leaf``.
        parts: the queries', keys' and values' ``part``.
    """
    root = next(key for key in state if key.endswith(landmark)).removesuffix(landmark)
    converted: State = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name = key.removeprefix(root)
        for pattern, replacement in patterns:
            name = pattern.sub(replacement, name)
        if match := separate.fullmatch(name):
            apart.setdefault(f"{match['block']}.attn.qkv.{match['leaf']}", {})[match["part"]] = value
        else:
            converted[name] = value
    of_queries, of_keys, of_values = parts
    for name, found in apart.items():
        if name.endswith(".bias") and found.keys() == {of_queries, of_values}:
            found[of_keys] = torch.zeros_like(found[of_queries])  # DINOv3's keys have none
        if len(found) == len(parts):  # an incomplete one stays missing, and is reported
            converted[name] = torch.cat([found[part] for part in parts])
    return converted


_LAYOUTS: tuple[tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[Mapping[str, Tensor]], State]], ...] = (
    (_is_haiku, _from_haiku),
    (_is_simclr, _from_simclr),
    (_is_dinov2, _from_dinov2),
    (_is_dinov3, _from_dinov3),
    (lambda state: _child_root(state) is not None, _from_children),
)
