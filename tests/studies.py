"""Studies small enough to plan in a moment and to run in seconds."""

from __future__ import annotations

import copy
from typing import Any

from raysweep.planning import PackFacts
from raysweep.study import Study
from raysweep.study.load import validate_study

FAKE_FACTS = {
    name: PackFacts(
        path=f"/packs/{name}.h5",
        digest=f"sha256:{name}",
        num_channels=1,
        num_classes=4,
        num_train_slices=64,
        num_annotated={"slice": 32, "volume": 16, "subject": 8},
    )
    for name in ("cardiac", "leaves")
}
"""Facts of packs that are nowhere, for tests that only plan."""


def study_document(cardiac: str = "/packs/cardiac.h5", leaves: str = "/packs/leaves.h5") -> dict[str, Any]:
    """A study of one cell per source, small enough to run in seconds."""
    return {
        "study": "tiny",
        "packs": {"cardiac": {"file": cardiac}, "leaves": {"file": leaves}},
        "backbones": {"small": {"encoder": "test_resnet", "channels": 1}},
        "sources": {
            "random": "random",
            "cardiac": ["random", {"pretrain": {"pack": "cardiac"}}],
            "leaves-cardiac": [
                "random",
                {"pretrain": {"pack": "leaves", "epochs": 1}},
                {"pretrain": {"pack": "cardiac"}},
            ],
        },
        "pretraining": {"image_size": 32, "batch_size": 4, "precision": "float32"},
        "tasks": {
            "heart": {
                "kind": "segmentation",
                "pack": "cardiac",
                "decoder_channels": [16, 8],
                "training": {"epochs": 2, "batch_size": 4, "image_size": 32, "precision": "float32"},
            }
        },
        "grid": {
            "source": ["random", "cardiac"],
            "method": ["simclr"],
            "pretrain_epochs": [1, 2],
            "annotations": [4],
            "seed": [0],
        },
        "resources": {"attempts": 1},
    }


def with_changes(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a document with dotted keys set; a value of ... removes the key."""
    changed = copy.deepcopy(document)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        node: Any = changed
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return changed


def fake_study(changes: dict[str, Any] | None = None) -> Study:
    """A study over packs that are nowhere, for tests that only plan."""
    return validate_study(with_changes(study_document(), changes or {}))
