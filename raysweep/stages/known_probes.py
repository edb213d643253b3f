"""Probes of encoders that were probed before, such as the start that many pretrainings of a study share."""

from __future__ import annotations

import json

import torch

from raysweep.identity import content_id
from raysweep.sources.encoder import Encoder
from raysweep.stages.frozen_features import weights_digest
from raysweep.stages.probes import RECIPE, Probes
from raysweep.store import Store


def measure_once(probes: Probes, encoder: Encoder, store: Store) -> dict[str, float]:
    """Return the probes of an encoder: what the store knows of them, else measured and put there.

    They are known by everything that decides their bits: the procedure, the weights, the pack, size and scale of its
    slices, device, arithmetic, threads and version of torch.
    """
    runtime = probes.runtime.facts()
    key = content_id(
        {
            "recipe": RECIPE,
            "encoder": weights_digest(encoder).hex(),
            "pack": [probes.pack.digest, probes.pack.reading, *probes.splits["val"], probes.draw],
            "image_size": probes.image_size,
            "normalisation": probes.normalisation.model_dump(mode="json"),
            "computed": [runtime["device"], runtime["precision"], runtime["threads"], torch.__version__],
        }
    )
    path = store.probe_path(key)
    if (data := store.read_bytes(path)) is not None:
        known: dict[str, float] = json.loads(data)
        return known
    measured = probes.measure(encoder)
    store.write_bytes(path, json.dumps(measured).encode())
    return measured
