"""Short pretrainings of every method on synthetic cardiac slices, and what the features of their encoders know."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import nn

from raysweep import registry
from raysweep.data.augment import apply, keep_whole
from raysweep.data.slices import normalised, scaled_slices, shapes_of
from raysweep.data.staging import open_located
from raysweep.planning import Stage, build_plan
from raysweep.results.live import live_files
from raysweep.results.read import holding, read_files
from raysweep.settings import CONVOLUTIONAL, TRANSFORMER, Augmentation
from raysweep.sources.encoder import Encoder
from raysweep.sources.snapshots import RANDOM_NORMALISATION, build_start, read_snapshot
from raysweep.stages.known_probes import measure_once
from raysweep.stages.probes import Probes
from raysweep.stages.run import run_stage
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from raysweep.study.load import validate_study
from raysweep.sweep import _facts

PATIENTS = 200
"""Of whom 160 are trained on and 40, the val and the test split, are held out."""
HELD_OUT = ("val", "test")
DRAWS = 3
"""Of the cells that probes learn from and are asked for; a gain's standard deviation over draws is about 0.01."""
BATCH, IMAGE_PX = 16, 64
EPOCHS = 20
# A bank is random at first, and a slice renews its entry once an epoch: it takes many to forget that. InfoMin's loss
# falls as slowly.
LONGER = dict.fromkeys(("insdis", "pirl", "infomin"), 40)
_PRECISIONS = {CONVOLUTIONAL: "bfloat16", TRANSFORMER: "float32"}  # whichever is faster on a CPU that has both
_PACK = {"slices": 3, "frames": 2, "size_px": [72, 88], "cine": False}
_VIT = {"encoder": "test_vit", "channels": 1, "options": {"patch_size": 8}}
# Of squares of 8 MAE, which sees a quarter, sees no whole heart.
_FINER = {**_VIT, "options": {"patch_size": 4}}
# As wide and deep as test_vit, but with positions that turn queries and keys, as in DINOv3, where test_vit learns
# vectors to add: with those the neighbours of I-JEPA's tokens stayed below the random encoder's.
_ROTARY = {
    "encoder": "vit_small_patch16_dinov3",
    "channels": 1,
    "options": {"patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 2, "init_values": 1.0},
}
_TRANSFORMERS: dict[str, dict[str, Any]] = {"mae": _FINER, "i-jepa": _ROTARY}
"""The transformer of a method, where it is not test_vit with patches of 8 pixels."""
_OPTIMISATION = {"optimiser": "adamw", "weight_decay": 0.01, "warmup_epochs": 1, "clip_norm": 3.0}
# At twice the rate, and transformers at four times, probes of one run differed from those of the next by more than
# training gained, projections collapsed, or features came near a single direction (an effective rank of 2).
_RATES = {CONVOLUTIONAL: 1e-3, TRANSFORMER: 5e-4}
_WIDTHS = {"hidden_features": 512, "output_features": 128, "predictor_features": 128, "num_prototypes": 256}
_WIDTHS |= {"decoder_features": 64, "decoder_depth": 2, "decoder_heads": 4, "predictor_depth": 2, "predictor_heads": 4}
_WIDTHS |= {"num_small_crops": 2, "bottleneck_features": 128}
# Defaults are for hundreds of epochs on slices of 224 pixels; here there are some 500 steps on slices of 64.
# An average over 100 steps. Over ten (0.9) the keys of a queue are outdated so soon that drifting away from them is
# easier to learn than telling slices apart: projections of MoCo-v2, DenseCL, InfoMin and PixPro then all became one.
_MOMENTUM = {"tau_start": 0.99, "tau_end": 0.995}
_LEAST_CROP = 0.3  # of a slice of 64 pixels a crop of 8 % is 18 pixels wide: a piece of tissue, without a heart
_SMALL_CROP = (0.15, 0.4)
# Clusters of 30 slices each, as in PCL, where a quarter of the slices would leave four; and an easier task, as SwAV's
# authors advise where the loss stays at the logarithm of the number of clusters, which it otherwise does here: weaker
# jitter, no small crops, whose 32 pixels leave one cell of features.
_EASIER = {"brightness": 0.4, "contrast": 0.4, "gamma": 0.4, "crop_scale": (_LEAST_CROP, 1.0)}
_CLUSTERS = {"num_clusters": 32, "num_small_crops": 0, "augmentation": _EASIER}
# Likewise; and targets warmer than 0.04 were uniform within an epoch.
_TEACHER: dict[str, Any] = {"num_small_crops": 0, "num_prototypes": 64, "teacher_temperature": 0.04}
_OF_METHODS: dict[str, dict[str, Any]] = {
    "simmim": {"mask_px": 8},  # one patch; squares of 32 pixels would leave two by two
    "mae": {"normalised_targets": False},  # a patch of 4 x 4 pixels is even, so that normalised it is noise
    # A head of full width would take most of the time, as it runs on every patch. A third to two thirds of the patches
    # of every view are hidden: with a tenth to a half of every other view's, the default, neighbours gained nothing.
    "ibot": {"hidden_features": 128, "mask_p": 1.0, "mask_share": (0.3, 0.7), **_TEACHER},
    "dinov2": {"hidden_features": 128, **_TEACHER},
    "dino": _TEACHER,
    # Narrower than the encoder, and deeper than other predictors here, as in the paper.
    "i-jepa": {"predictor_features": 32, "predictor_depth": 4},
    "supervised": {"learn": "masks"},
    "tico": {"tau_start": 0.9, "tau_end": 0.99},  # with slower targets both probes fell below the random encoder's
    "deepcluster-v2": _CLUSTERS,
    "sela-v2": _CLUSTERS,
    "swav": {**_CLUSTERS, "epsilon": 0.03, "frozen_prototypes": 0.05, "queue_size": 0},  # a queue is outdated too soon
    # At full strength, and with keys that follow faster, its loss ended at chance.
    "infomin": {"augmentation": _EASIER, "tau_start": 0.996, "tau_end": 0.999},
    # Of 16 slices of one organ a view and its neighbour in the queue are told apart but a little: at 0.1 the loss
    # stays near chance, log 16 = 2.77, for as long.
    "nnclr": {"temperature": 0.2},
}


@dataclass(frozen=True)
class Probed:
    """What frozen features know of held-out patients."""

    as_built: dict[str, float]
    """Of the random encoder, its normalisation layers not having seen a slice."""
    random: dict[str, float]
    """Of the same weights, normalised by the statistics of the train split: what a pretraining has to beat."""
    trained: dict[str, float]
    epoch_s: float
    """Seconds of the fastest epoch."""

    def gain(self, probe: str) -> float:
        """Return what training added to a probe."""
        return self.trained[probe] - self.random[probe]


def probe_pretraining(
    name: str, seed: int, store: Store, epochs: int | None = None, patients: int = PATIENTS
) -> Probed:
    """Return what a pretraining changes; it is trained unless the store has it."""
    epochs = epochs or epochs_of(name)
    stage = stage_of(name, seed, epochs, store, patients)
    if stage.id not in store.ledger():
        for _ in run_stage(stage, store, threads=1, attempt=1):
            pass
    as_built, random = _probe_start(stage, store)
    trained = _probe(stage, read_snapshot(store, stage.id, epochs).encoder, store)
    return Probed(as_built, random, trained, _fastest_epoch_s(stage, store))


def _probe_start(stage: Stage, store: Store) -> tuple[dict[str, float], dict[str, float]]:
    """Return the probes of the encoder that a run starts from, as built and with the statistics of its data."""
    probes = _probes_of(stage)
    start = build_start(store, stage.config, stage.inputs)
    as_built = _probe(stage, start.encoder, store)
    adapt_statistics(start.encoder, probes)
    return as_built, _probe(stage, start.encoder, store)


def _probe(stage: Stage, encoder: Encoder, store: Store) -> dict[str, float]:
    """Return the probes of an encoder, averaged over draws of the cells."""
    drawn = [measure_once(_probes_of(stage, draw), encoder, store) for draw in range(DRAWS)]
    return {metric: mean(one[metric] for one in drawn) for metric in drawn[0]}


def _probes_of(stage: Stage, draw: int = 0) -> Probes:
    """Return what measures encoders of a stage, random weights being drawn next as the stage would draw them."""
    config = stage.config
    pack = open_located(stage.inputs["pack"], config["pack"])
    runtime = prepare_runtime(config["seed"], config["precision"], threads=1)
    return Probes(pack, config["image_size"], RANDOM_NORMALISATION, runtime, held_out=HELD_OUT, draw=draw)


def adapt_statistics(encoder: Encoder, probes: Probes) -> None:
    """Give batch normalisation the statistics of whole train slices; weights stay, and other encoders altogether.

    Without them a random network's features nearly coincide, and any training repairs that whatever it learns.
    """
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over batches
    encoder.train()
    pack = probes.pack
    rows = np.random.default_rng(0).permutation(pack.select(split="train")) if layers else np.empty(0, np.int64)
    with torch.no_grad(), probes.runtime.autocast():
        for first in range(0, len(rows), BATCH):
            part = rows[first : first + BATCH]
            slices = apply(scaled_slices(pack, part), keep_whole(shapes_of(pack, part)), probes.image_size)
            encoder.feature_maps(normalised(slices, probes.normalisation))


def _fastest_epoch_s(stage: Stage, store: Store) -> float:
    files = holding(live_files(store, "epochs"), {stage.id})
    rows = read_files(store, "epochs", files, {stage.id}).to_pylist()
    elapsed_s = [row["elapsed_s"] for row in rows if row["split"] == "train" and row["metric"] == "loss"]
    return min(after - before for before, after in pairwise((0.0, *elapsed_s)))


def epochs_of(name: str) -> int:
    """Return the epochs that a method is given."""
    return LONGER.get(name, EPOCHS)


def encoder_of(name: str) -> str:
    """Return the type of encoder that a method is trained on here: convolutional, if it can."""
    types = registry.load("methods", name).METHOD.encoder_types
    return CONVOLUTIONAL if CONVOLUTIONAL in types else TRANSFORMER


def backbone_of(name: str) -> dict[str, Any]:
    """Return the backbone that a method is trained on here."""
    if encoder_of(name) == CONVOLUTIONAL:
        return {"encoder": "test_resnet", "channels": 1}
    return _TRANSFORMERS.get(name, _VIT)


def settings_of(name: str) -> dict[str, Any]:
    """Return what a method is trained with here, beside its defaults."""
    defaults = registry.load("methods", name).METHOD.Settings()
    fields = dict(defaults)
    settings = {key: value for key, value in (_WIDTHS | _MOMENTUM).items() if key in fields}
    settings |= {key: changed for key, value in fields.items() if (changed := _larger_crops(key, value))}
    own = dict(_OF_METHODS.get(name, {}))
    optimisation = {**_OPTIMISATION, "lr": _RATES[encoder_of(name)], **own.pop("optimisation", {})}
    return settings | {"optimisation": optimisation} | own


def _larger_crops(key: str, value: Any) -> Any:
    """Return what a group of settings changes to, so that its crops still show a heart; None for other settings."""
    if key == "small_crop_scale":
        return _SMALL_CROP
    if isinstance(value, Augmentation):
        least, most = value.crop_scale
        return {"crop_scale": _SMALL_CROP if most < 0.5 else (max(least, _LEAST_CROP), most)}
    inner = getattr(value, "augmentation", None)
    return {"augmentation": _larger_crops("augmentation", inner)} if isinstance(inner, Augmentation) else None


def stage_of(name: str, seed: int, epochs: int, store: Store, patients: int = PATIENTS) -> Stage:
    """Return the pretraining of a method; a seed is that of the patients, the weights, the order and the crops."""
    pack = {**_PACK, "patients": patients, "seed": seed}
    study = validate_study(
        {
            "study": "probes",
            "packs": {"cardiac": {"dataset": "synthetic-cardiac", "options": pack}},
            "backbones": {"small": backbone_of(name)},
            "sources": {"pretrained": ["random", {"pretrain": {"pack": "cardiac"}}]},
            "pretraining": {
                "image_size": IMAGE_PX,
                "batch_size": BATCH,
                "precision": _PRECISIONS[encoder_of(name)],
                "seed": seed,
                "methods": {name: settings_of(name)},
            },
            "tasks": {"labels": {"kind": "classification", "pack": "cardiac", "training": {"image_size": 32}}},
            "grid": {
                "source": ["pretrained"],
                "method": [name],
                "pretrain_epochs": [epochs],
                "annotations": [1],
                "seed": [0],
            },
        }
    )
    plan = build_plan(study, _facts(study, store))
    return next(stage for stage in plan.stages.values() if stage.kind == "pretrain")
