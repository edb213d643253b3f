"""The formats of exports: each is written, then loaded again the way its library does, before it is handed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from raysweep._version import __version__
from raysweep.errors import RaysweepError, WeightsError
from raysweep.export.find import Found
from raysweep.settings import Backbone
from raysweep.sources.fit import with_channels
from raysweep.sources.prefixes import flat
from raysweep.tasks._architectures import Design, build_network, library_options

_RGB = 3
_IMPORT_TORCH = "import torch\n"
_UNET = Design("unet", 4, (256, 128, 64, 32, 16), None)
_DPT = Design("dpt", 4, (), None)
"""What an encoder is exported inside of for segmentation-models-pytorch: its own defaults, and four classes."""


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    path: Path
    usage: str
    """Python that loads it, without raysweep."""
    untrained: tuple[str, ...] = ()
    """Keys of the architecture that no training touched: they lie behind the encoder's last feature map."""


def export(found: Found, to: Path, format_: str) -> Exported:
    """Write a trained encoder, or the whole network where the format holds one.

    Args:
        found: what to write.
        to: file, or folder for formats of several files.
        format_: one of `FORMATS`.

    Raises:
        RaysweepError: if the format cannot hold it; nothing is written then.
    """
    if format_ not in FORMATS:
        raise RaysweepError(f"unknown format {format_!r}; allowed: {', '.join(FORMATS)}")
    return FORMATS[format_](found, to)


def _to_timm(found: Found, to: Path) -> Exported:
    model, untrained = _whole_timm_model(found)
    _write(model.state_dict(), to, found)
    backbone = found.backbone
    options = "".join(f", {key}={value!r}" for key, value in backbone.options.items())
    usage = (
        f"model = timm.create_model({backbone.encoder!r}, num_classes=0, in_chans={backbone.channels}{options})\n"
        f"model.load_state_dict({_loader(to)})"
    )
    return Exported(to, f"import timm\n{_imports(to)}{usage}", untrained)


def _whole_timm_model(found: Found) -> tuple[nn.Module, tuple[str, ...]]:
    """Return timm's classification model without a classifier, with the encoder's weights, and the keys it lacks."""
    backbone = found.backbone
    encoder = found.encoder()
    model: nn.Module = timm.create_model(
        backbone.encoder, num_classes=0, in_chans=backbone.channels, **backbone.options
    )
    ours = {flat(key.removeprefix("model.")): value for key, value in encoder.model.state_dict().items()}
    ours |= {flat(key): value for key, value in encoder.model.state_dict().items()}
    state = model.state_dict()
    untrained = tuple(key for key in state if flat(key) not in ours and not key.endswith("num_batches_tracked"))
    model.load_state_dict({key: ours.get(flat(key), value) for key, value in state.items()}, strict=True)
    return model.eval(), untrained


def _to_torchvision(found: Found, to: Path) -> Exported:
    import torchvision

    name = found.backbone.encoder
    encoder = found.encoder()
    try:
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None).state_dict()
    except ValueError as error:
        raise WeightsError(_no_torchvision(name)) from error
    state = {key: value.detach().cpu() for key, value in encoder.model.state_dict().items()}
    first = next((key for key, value in state.items() if value.ndim == 4), "")
    if first and state[first].shape[1] != _RGB:
        state[first] = with_channels(state[first], _RGB)
    wanted = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    if wanted != {key: value.shape for key, value in state.items()}:
        raise WeightsError(_no_torchvision(name))
    _write(state, to, found)
    usage = (
        f"model = torchvision.models.{name}()\nmodel.fc = torch.nn.Identity()\n"
        f"model.load_state_dict({_loader(to)})  # takes three channels: repeat a grey slice"
    )
    imports = f"import torch\nimport torchvision\n{_imports(to).removeprefix(_IMPORT_TORCH)}"
    return Exported(to, f"{imports}{usage}")


def _no_torchvision(name: str) -> str:
    return f"torchvision has no network with the layers of {name!r}; its plain ResNets are those of timm. Use timm"


def _to_smp(found: Found, to: Path) -> Exported:
    if found.network is not None:
        return _save_smp(found, to)
    backbone, encoder = found.backbone, found.encoder()
    design = _DPT if encoder.vit is not None else _UNET
    network = build_network(design, encoder)
    _write(network.get_submodule("encoder").state_dict(), to, found)
    given = {"encoder_weights": None, "in_channels": backbone.channels, "classes": design.num_channels}
    given |= library_options(design, backbone)
    options = "".join(f", {key}={value!r}" for key, value in given.items())
    usage = (
        f"model = smp.{type(network).__name__}('tu-{backbone.encoder}'{options})\n"
        f"model.encoder.load_state_dict({_loader(to)})"
    )
    return Exported(to, f"import segmentation_models_pytorch as smp\n{_imports(to)}{usage}")


def _save_smp(found: Found, to: Path) -> Exported:
    import segmentation_models_pytorch as smp

    assert found.network is not None
    network = found.network.facts.get("network")
    if network is None:
        raise WeightsError(
            f"the network of stage {found.stage} is none of segmentation-models-pytorch; export its encoder as timm"
        )
    _refuse_file(to)
    try:
        model = getattr(smp, network["class"])(**network["options"])
        model.load_state_dict(dict(found.network.tensors), strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"segmentation-models-pytorch builds other layers than the {network['class']} of stage {found.stage} has, "
            "as where a transformer's patches have a side that is no power of two; export its encoder as timm"
        ) from error
    model.save_pretrained(to)
    _write_card(to, found)
    return Exported(to, f"import segmentation_models_pytorch as smp\nmodel = smp.from_pretrained({str(to)!r})")


def _to_huggingface(found: Found, to: Path) -> Exported:
    from timm.models import save_for_hf

    if found.network is not None and found.network.facts.get("network") is not None:
        return _save_smp(found, to)  # the format in which the hub holds segmentation models
    _refuse_file(to)
    model, untrained = _whole_timm_model(found)
    backbone = found.backbone
    seen = found.normalisation.for_channels(backbone.channels)
    statistics = {name: _each(getattr(seen, name), backbone.channels) for name in ("mean", "std")}
    save_for_hf(model, str(to), model_args=dict(backbone.options), safe_serialization=True, data_config=statistics)
    _write_card(to, found)
    usage = f"import timm\nmodel = timm.create_model('local-dir:{to}', pretrained=True)"
    return Exported(to, usage, untrained)


def _each(value: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    return (value,) * channels if isinstance(value, float) else value


def _refuse_file(to: Path) -> None:
    if to.is_file() or to.suffix in (".pth", ".pt", ".safetensors"):
        raise RaysweepError(f"--to {to}: this format is a folder of several files; give a folder's name")


def _write(state: Mapping[str, Tensor], to: Path, found: Found) -> None:
    """Write a state dict as safetensors or, by its suffix, as a PyTorch checkpoint."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.suffix == ".safetensors":
        save_file(tensors, to, {"raysweep": json.dumps(_card(found), sort_keys=True)})
    elif to.suffix in (".pth", ".pt"):
        torch.save(tensors, to)
    else:
        raise RaysweepError(f"--to {to}: a file of weights ends in .safetensors, .pth or .pt")


def _write_card(to: Path, found: Found) -> None:
    (to / "raysweep.json").write_text(json.dumps(_card(found), indent=1, sort_keys=True), encoding="utf-8")


def _card(found: Found) -> dict[str, Any]:
    """Return what a user must know of an export: the input it expects, and where it comes from."""
    return {
        "raysweep": __version__,
        "timm": timm.__version__,
        "backbone": _plain(found.backbone),
        "input": "intensities scaled to [0, 1] between the 0.5 and 99.5 percentiles of the volume, then normalised",
        "normalisation": found.normalisation.model_dump(mode="json"),
        "classes": None if found.network is None else found.network.facts.get("classes"),
        **found.facts(),
    }


def _plain(backbone: Backbone) -> dict[str, Any]:
    return backbone.model_dump(mode="json")


def _loader(to: Path) -> str:
    return f"load_file({str(to)!r})" if to.suffix == ".safetensors" else f"torch.load({str(to)!r}, weights_only=True)"


def _imports(to: Path) -> str:
    return "from safetensors.torch import load_file\n" if to.suffix == ".safetensors" else _IMPORT_TORCH


FORMATS: Mapping[str, Callable[[Found, Path], Exported]] = {
    "timm": _to_timm,
    "torchvision": _to_torchvision,
    "segmentation-models-pytorch": _to_smp,
    "huggingface": _to_huggingface,
}
"""Formats by name."""
