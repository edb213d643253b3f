"""The presets of ``search_spaces``: sizes of the real packs, and each study at toy scale."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from raysweep import zoo
from raysweep.datasets import build_pack
from raysweep.planning import PackFacts
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import build_encoder
from raysweep.sources.stored import WeightsRecord, weights_path, write_record
from raysweep.store import Store
from tests.lookalikes import write_lookalike

FOLDER = Path(__file__).parents[1] / "search_spaces"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "quickstart")

_SIZES = {
    # train slices, annotated ones, train subjects, channels
    "acdc": (21_500, 1_498, 80, 1),  # 80 patients; unlabelled: about 27 frames of 9.3 slices each
    "chestxray14": (75_312, 75_312, 25_000, 1),
    "chexpert": (190_000, 190_000, 55_000, 1),  # 223,414 images, 15 % of the patients drawn for validation
    "shenzhen": (463, 463, 463, 1),
    "rsna": (1_164_000, 1_164_000, 4_700, 3),  # 65 % of 1,790,594 slices
    "siim": (7_830, 7_830, 7_830, 1),  # 65 % of 12,047
    "montgomery": (90, 90, 90, 1),  # 65 % of 138
    "drive": (16, 16, 16, 3),
    "mine": (500, 100, 100, 1),
}
"""What the packers make of the published data, where that is known, else by the shares that they draw."""


def true_facts(names: Iterable[str]) -> dict[str, PackFacts]:
    """Return facts of packs as large as the real ones."""
    return {
        name: PackFacts(
            path=f"/packs/{name}.h5",
            digest=f"sha256:{name}",
            num_channels=_SIZES[name][3],
            num_classes=2,
            num_train_slices=_SIZES[name][0],
            num_annotated={"slice": _SIZES[name][1], "volume": _SIZES[name][2], "subject": _SIZES[name][2]},
        )
        for name in names
    }


_PACKERS = {"acdc": "acdc", "chestxray14": "chestxray14", "chexpert": "chexpert", "shenzhen": "shenzhen",
            "rsna": "rsna-pe", "siim": "siim-acr", "montgomery": "montgomery", "drive": "drive",
            "mine": "folder"}  # fmt: skip
_LOOKALIKES: Mapping[str, Mapping[str, Any]] = {
    "acdc": {"subjects": 12, "frames": 2},
    "chestxray14": {"subjects": 30},
    "chexpert": {"subjects": 30},
    "shenzhen": {"subjects": 24},
    "rsna": {"subjects": 30, "slices": 2},
    "siim": {"subjects": 24},
    "montgomery": {"subjects": 16},
    "drive": {"subjects": 10},
    "mine": {"subjects": 16, "size": 32},
}


def toy_pack(name: str, folder: Path) -> Path:
    """Pack the look-alike of a preset's data set."""
    files = folder / f"{name}-files"
    options = write_lookalike(_PACKERS[name], files, **_LOOKALIKES[name])
    made = build_pack(_PACKERS[name], files, folder / f"{name}.h5", options, workers=1)
    shutil.rmtree(files)
    return made


TINY = {"resnet": "test_resnet", "vit": "test_vit"}
VIT_OPTIONS = {"patch_size": 8}


def stand_in(name: str) -> zoo.Published:
    """Return the zoo's entry of published weights as if they were of a tiny encoder."""
    entry = zoo.find(name)
    tiny = TINY["vit" if entry.architecture.startswith("vit") else "resnet"]
    return dataclasses.replace(
        entry, architecture=tiny, timm=None, urls=(), prefix=None, member=None, click_through="a stand-in"
    )


def store_stand_in(store: Store, name: str, architecture: str) -> None:
    """Write random weights of a tiny encoder into the store as published ones."""
    torch.manual_seed(sum(map(ord, name)))
    options = VIT_OPTIONS if architecture == TINY["vit"] else {}
    state = build_encoder(Backbone(encoder=architecture, channels=3, options=options)).model.state_dict()
    kept = {key: value.contiguous() for key, value in state.items()}
    seen = Normalisation(mean=zoo.IMAGENET.mean, std=zoo.IMAGENET.std).model_dump_json()
    store.write_bytes(weights_path(name), save_safetensors(kept, {"normalisation": seen}))
    record = WeightsRecord(name=name, architecture=architecture, digest=f"sha256:{name}", size_bytes=1,
                           origin="test", num_tensors=len(kept), prefix="", dropped=0)  # fmt: skip
    write_record(store, record)
