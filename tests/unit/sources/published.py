"""Files as their publishers wrote them: true key names and wrappers, at a width that costs nothing."""

from __future__ import annotations

import argparse
import collections
import pickle
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import timm
import torch

from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.sources.formats.crc32c import crc32c

NARROW = {"base_width": 4}
RESNET = Backbone(encoder="resnet50", channels=3, options=NARROW)
"""A ResNet-50 whose blocks are a sixteenth as wide inside: all its keys, and its outputs."""

State = dict[str, torch.Tensor]


def resnet_state(seed: int = 1, *, width: bool = True) -> State:
    """A ResNet-50 with torchvision's keys, its classifier included, and statistics unlike the initial ones."""
    torch.manual_seed(seed)
    state = timm.create_model("resnet50", **(NARROW if width else {})).state_dict()
    return {k: torch.rand_like(v) + 0.5 if "running" in k else v for k, v in state.items()}


def assert_loaded(backbone: Backbone, encoder: Any, state: State) -> None:
    """Every weight of the encoder is the one in ``state``, bit for bit."""
    first = encoder.model.state_dict()
    assert {k for k in first if not k.endswith("num_batches_tracked")} <= set(state)
    for key, value in first.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, state[key], rtol=0, atol=0, msg=key)


def fresh(backbone: Backbone = RESNET) -> Any:
    torch.manual_seed(99)
    return build_encoder(backbone)


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def moco(state: State) -> dict[str, Any]:
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    other = {k: v + 1 if v.is_floating_point() else v for k, v in body.items()}
    heads = {"module.encoder_q.fc.0.weight": torch.rand(4, 4), "module.encoder_k.fc.0.weight": torch.rand(4, 4)}
    queue = {"module.queue": torch.rand(4, 8), "module.queue_ptr": torch.zeros(1)}
    keys = {**prefixed(body, "module.encoder_q."), **prefixed(other, "module.encoder_k."), **heads, **queue}
    return {"epoch": 800, "arch": "resnet50", "state_dict": keys, "optimizer": {"state": {0: {"m": torch.rand(2)}}}}


def pycontrast(state: State) -> dict[str, Any]:
    """InsDis, PIRL, InfoMin: settings beside the weights, and a jigsaw branch."""
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    keys = {
        **prefixed(body, "module.encoder."),
        "module.head.0.weight": torch.rand(4, 4),
        "module.jigsaw.weight": torch.rand(4, 4),
        "module.head_jig.fc1.weight": torch.rand(4, 4),
    }
    return {"opt": argparse.Namespace(lr=0.1, jigsaw=True), "model": keys, "epoch": 200}


def swav(state: State) -> State:
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    heads = {"module.projection_head.0.weight": torch.rand(4, 4), "module.prototypes.weight": torch.rand(4, 4)}
    return {**prefixed(body, "module."), **heads}


def lightning(state: State) -> dict[str, Any]:
    """A domain checkpoint of the cardiac study: solo-learn's BYOL, whose momentum backbone is what counts."""
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    online = {k: v + 1 if v.is_floating_point() else v for k, v in body.items()}
    keys = {
        **prefixed(online, "backbone."),
        **prefixed(body, "momentum_backbone."),
        "projector.0.weight": torch.rand(4, 4),
        "predictor.0.weight": torch.rand(4, 4),
        "classifier.weight": torch.rand(4, 4),
    }
    return {"state_dict": keys, "epoch": 34, "hyper_parameters": {"extra": argparse.Namespace(a=1)}}


def byol_target(state: State) -> dict[str, Any]:
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    online = {k: v + 1 if v.is_floating_point() else v for k, v in body.items()}
    return {"online_backbone": prefixed(online, "module."), "target_backbone": prefixed(body, "module.")}


def sequential(state: State, root: str = "backbone.") -> State:
    """RadImageNet: the children of a ResNet, numbered."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    return {
        f"{root}{numbers[key.split('.')[0]]}.{key.split('.', 1)[1]}": value
        for key, value in state.items()
        if not key.startswith("fc.")
    }


# ---- haiku ---------------------------------------------------------------------------------------------------------

_StateFields = ("online_params", "target_params", "online_state", "target_state", "online_opt_state")


def haiku_arrays(state: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and statistics of a ResNet-50 as haiku names and shapes them."""
    parameters: dict[str, Any] = {"projector/linear": {"w": np.zeros((3, 2), np.float32)}}
    statistics: dict[str, Any] = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        *module, leaf = key.split(".")
        name = _haiku_module(module)
        array = value.numpy()
        if leaf.startswith("running_"):
            ema = f"{name}/~/{leaf.removeprefix('running_')}_ema"
            content = array.reshape(1, 1, 1, -1)
            statistics[ema] = {"average": content, "hidden": content + 1, "counter": np.int32(7)}
        elif array.ndim == 4:
            parameters.setdefault(name, {})["w"] = np.ascontiguousarray(array.transpose(2, 3, 1, 0))
        else:
            field = "scale" if leaf == "weight" else "offset"
            parameters.setdefault(name, {})[field] = array.reshape(1, 1, 1, -1)
    return parameters, statistics


def _haiku_module(module: list[str]) -> str:
    if len(module) == 1:
        return f"res_net50/~/initial_{'conv' if module[0] == 'conv1' else 'batchnorm'}"
    stage, block, *rest = module
    where = f"res_net50/~/block_group_{int(stage[-1]) - 1}/~/block_{block}/~"
    if rest[0] == "downsample":
        return f"{where}/shortcut_{'conv' if rest[1] == '0' else 'batchnorm'}"
    kind, number = ("conv", rest[0][4:]) if rest[0].startswith("conv") else ("batchnorm", rest[0][2:])
    return f"{where}/{kind}_{int(number) - 1}"


def byol_pickle(state: State, other: State) -> bytes:
    """BYOL's checkpoint: a named tuple of a class that only its training code has, pickled by that code."""
    module = ModuleType("byol")
    kind = collections.namedtuple("_ByolExperimentState", _StateFields, module="byol.byol_experiment")
    online, online_state = haiku_arrays(state)
    target, target_state = haiku_arrays(other)
    import sys

    experiment = ModuleType("byol.byol_experiment")
    experiment._ByolExperimentState = kind  # type: ignore[attr-defined]
    sys.modules.update({"byol": module, "byol.byol_experiment": experiment})
    try:
        value = kind(online, target, online_state, target_state, {"trace": online})
        return pickle.dumps({"experiment_state": value, "step": 300000})
    finally:
        del sys.modules["byol"], sys.modules["byol.byol_experiment"]


# ---- TensorFlow ----------------------------------------------------------------------------------------------------


def simclr_variables(state: State) -> dict[str, np.ndarray]:
    """Variables of SimCLR's ResNet-50, numbered in the order in which its code makes them."""
    variables: dict[str, np.ndarray] = {"global_step": np.array(225206, np.int64)}
    order = ["conv1"]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            order += [f"layer{stage}.0.downsample.0"] if block == 0 else []
            order += [f"layer{stage}.{block}.conv{number}" for number in (1, 2, 3)]
    for number, name in enumerate(order):
        suffix = f"_{number}" if number else ""
        kernel = state[f"{name}.weight"].numpy().transpose(2, 3, 1, 0)
        variables[f"base_model/conv2d{suffix}/kernel"] = np.ascontiguousarray(kernel)
        variables[f"base_model/conv2d{suffix}/kernel/Momentum"] = np.zeros(1, np.float32)
        norm = name.replace("conv", "bn") if "downsample" not in name else name[:-1] + "1"
        for leaf, theirs in (
            ("weight", "gamma"),
            ("bias", "beta"),
            ("running_mean", "moving_mean"),
            ("running_var", "moving_variance"),
        ):
            variables[f"base_model/batch_normalization{suffix}/{theirs}"] = state[f"{norm}.{leaf}"].numpy()
    variables["head_supervised/linear_layer/dense/kernel"] = np.zeros((4, 2), np.float32)
    return variables


def write_tensorflow(prefix: Path, variables: dict[str, np.ndarray]) -> Path:
    """Write a checkpoint as TensorFlow does: raw data, and an index of sorted rows with shared key prefixes."""
    data, rows = bytearray(), [(b"", _field(1, 1) + _field(3, _field(1, 1)))]
    for name in sorted(variables):
        array = variables[name]
        content = array.tobytes()
        kind = {"float32": 1, "int64": 9}[array.dtype.name]
        shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
        entry = _field(1, kind) + _field(2, shape) + _field(4, len(data)) + _field(5, len(content))
        rows.append((name.encode(), entry + _varint(6 << 3 | 5) + struct.pack("<I", _masked(content))))
        data += content
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(bytes(data))
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(_table(rows))
    return index


def _table(rows: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB table of two data blocks, an empty meta index, an index block and a footer."""
    half, table, index_rows = len(rows) // 2, b"", []
    for part in (rows[:half], rows[half:]):
        handle = _varint(len(table))
        block = _block(part)
        index_rows.append((part[-1][0] + b"\xff", handle + _varint(len(block) - 5)))
        table += block
    meta, index = _block([]), _block(index_rows)
    handles = _varint(len(table)) + _varint(len(meta) - 5)
    handles += _varint(len(table) + len(meta)) + _varint(len(index) - 5)
    return table + meta + index + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _block(rows: list[tuple[bytes, bytes]]) -> bytes:
    content, last = b"", b""
    for key, value in rows:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    content += struct.pack("<II", 0, 1)
    return content + b"\0" + struct.pack("<I", _masked(content + b"\0"))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _masked(data: bytes) -> int:
    # Byte by byte takes minutes for a network; that both agree is tested on its own.
    crc = bytewise_crc32c(data) if len(data) < 2000 else crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


_TABLE = []
for _value in range(256):
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    _TABLE.append(_value)


def bytewise_crc32c(data: bytes) -> int:
    """CRC-32C a byte at a time, as the standard words it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
