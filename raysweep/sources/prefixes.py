"""Finding the encoder in a checkpoint: the prefix under which its keys stand, and the heads that go with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

from raysweep.errors import WeightsError, did_you_mean

HEADS = re.compile(
    r"^(fc\d?|heads?|head_\w+|\w+_heads?|classifier|last_linear|linear|projection\w*|projector\w*|predict\w+|prototypes?"
    r"|jigsaw\w*|contrast\w*|queue\w*|mlp|decoder\w*|mask_token|\w+_classifier|logit_\w+)(\.|$)"
)
"""Keys, below the encoder's prefix, of what a training put on top of it."""

PREFERENCE = (
    "momentum_backbone",
    "target_backbone",
    "teacher",
    "teacher_backbone",
    "model_ema",
    "ema",
    "encoder_q",
    "online_encoder",
    "online_network",
    "online",
    "backbone",
    "encoder",
    "student",
)
"""Which of several encoders in one checkpoint is meant: the one its method hands on, so mostly the averaged one."""


def flat(key: str) -> str:
    """Return a key as a feature extractor may spell it: timm's flatten ``stages.0`` to ``stages_0``."""
    return key.replace(".", "_")


def find_prefix(state: Mapping[str, Tensor], wanted: Iterable[str], asked: str | None = None) -> str:
    """Return the prefix, with its dot, under which most of an encoder's keys stand; empty for none.

    Args:
        state: tensors by their path in the file.
        wanted: the encoder's keys.
        asked: the prefix that the study names, if it names one.

    Raises:
        WeightsError: if several encoders fit equally and the preference decides for none, or the asked one is absent.
    """
    names = {flat(key) for key in wanted}
    overlaps = _overlaps(state, names)
    if asked is not None:
        return _asked(asked.rstrip("."), overlaps)
    if not overlaps:
        return ""
    best = max(overlaps.values())
    candidates = sorted(prefix for prefix, count in overlaps.items() if count == best)
    if len(candidates) == 1:
        return candidates[0]
    if best < len(names) / 2:
        # The encoder is nowhere in the file: what repeats may be a block, unless most of the file stands under it.
        whole = [prefix for prefix in candidates if sum(key.startswith(prefix) for key in state) > len(state) / 2]
        return min(whole, key=len, default="")
    ranked = sorted((rank, prefix) for prefix in candidates if (rank := _rank(prefix)) is not None)
    if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
        raise WeightsError(
            f"{len(candidates)} encoders in the file fit equally: {', '.join(candidates)}. "
            "Name the one you mean: `weights: {file: ..., prefix: ...}`."
        )
    return ranked[0][1]


def _asked(asked: str, overlaps: Counter[str]) -> str:
    """Return the prefix that is, or ends in, the one asked for, wherever in the file it stands."""
    found = [prefix for prefix, _ in overlaps.most_common() if f".{prefix}".endswith(f".{asked}.")]
    if not found:
        known = [name.rstrip(".") for name, _ in overlaps.most_common(8)]
        raise WeightsError(
            f"no key of the encoder stands under the prefix {asked!r}.{did_you_mean(asked, known)} "
            f"Prefixes under which some do: {', '.join(name or 'none at all' for name in known) or 'none'}."
        )
    return found[0]


def _overlaps(state: Mapping[str, Tensor], wanted: set[str]) -> Counter[str]:
    """Count, for every prefix of the file's keys, the encoder's keys that stand under it."""
    counts: Counter[str] = Counter()
    for key in state:
        position = 0
        while position >= 0:
            if flat(key[position:]) in wanted:
                counts[key[:position]] += 1
            position = key.find(".", position) + 1 or -1
    return counts


def _rank(prefix: str) -> int | None:
    """Return how high the preference puts a prefix; None if it knows no part of it."""
    ranks = [PREFERENCE.index(part) for part in prefix.split(".") if part in PREFERENCE]
    return min(ranks) if ranks else None
