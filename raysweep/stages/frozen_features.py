"""Features of a frozen encoder, computed once and used by every epoch and every stage of the process that needs them.

An encoder that does not learn gives a slice the same features whatever the annotation count, the seed or the epoch.
Validation and test slices are always the same; training slices are where augmentation leaves them whole.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from raysweep.settings import Augmentation

CPU_BYTES = 2**30
"""Memory for features in a process that computes on a CPU."""
GPU_SHARE = 0.2
"""Share of the GPU memory that a stage may hold which features may take."""


@dataclass(frozen=True)
class Features:
    """What an encoder returns for one slice."""

    parts: tuple[Tensor | Literal["input"] | None, ...]
    """Tensors; ``input``, which some encoders return first; None for prefix tokens that a transformer lacks."""
    structure: pytree.TreeSpec
    """The sequences, one in another or none, that the encoder returns them in."""

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(one.nbytes for one in self.parts if isinstance(one, Tensor))


class FeatureCache:
    """Features by encoder and slice, up to a number of bytes; encoders used longest ago give way."""

    def __init__(self) -> None:
        self._by_encoder: OrderedDict[Hashable, dict[Hashable, Features]] = OrderedDict()
        self._bytes: dict[Hashable, int] = {}

    def of(self, encoder: Hashable) -> dict[Hashable, Features]:
        """Return what is known of an encoder, which becomes the one used last."""
        self._bytes.setdefault(encoder, 0)
        known = self._by_encoder.setdefault(encoder, {})
        self._by_encoder.move_to_end(encoder)
        return known

    def make_room(self, needed: int, limit: int) -> None:
        """Have others give way to the encoder used last, until so many bytes more stay within a limit."""
        while sum(self._bytes.values()) + needed > limit and len(self._by_encoder) > 1:
            oldest, _ = self._by_encoder.popitem(last=False)
            del self._bytes[oldest]

    def add(self, encoder: Hashable, key: Hashable, features: Features, limit: int) -> None:
        """Keep features if they fit, in place of those of other encoders if need be."""
        needed = features.nbytes
        known = self.of(encoder)
        self.make_room(needed, limit)
        if sum(self._bytes.values()) + needed <= limit:
            known[key] = features
            self._bytes[encoder] += needed

    def clear(self) -> None:
        """Forget everything."""
        self._by_encoder.clear()
        self._bytes.clear()


_CACHE = FeatureCache()


def forget_all() -> None:
    """Give up the features that this process has kept, for a stage that has better use for the memory."""
    _CACHE.clear()


class FrozenEncoder:
    """Stands in for the forward pass of an encoder inside a network while the keys of its inputs are known.

    Features are computed slice by slice, whether they are kept or not: so their bits depend on nothing but the slice,
    not on the batch that needs them first. Those of batches may differ in the last bits.
    """

    def __init__(self, encoder: nn.Module, inputs: Hashable, limit: int, cache: FeatureCache = _CACHE) -> None:
        """Take the place of an encoder's forward pass.

        Args:
            encoder: does not learn, and returns a tensor, or sequences of tensors, for (B, C, H, W).
            inputs: what the features depend on beside weights and key: arithmetic, device, normalisation.
            limit: bytes that all features of the process may take.
            cache: where features are kept.
        """
        self._encoder, self._limit, self._cache = encoder, limit, cache
        self._forward: Callable[[Tensor], Any] = encoder.forward
        self._name = (weights_digest(encoder), inputs)
        self._keys: Sequence[Hashable] | None = None
        cache.of(self._name)
        cache.make_room(0, limit)  # an earlier stage may have had a higher limit
        encoder.forward = self._find_or_compute

    @contextmanager
    def known_as(self, keys: Sequence[Hashable]) -> Iterator[None]:
        """Have the samples of the next forward passes known by these keys, which say all about each input."""
        self._keys = keys
        try:
            yield
        finally:
            self._keys = None

    def _find_or_compute(self, x: Tensor) -> Any:
        keys = self._keys
        if keys is None or len(keys) != len(x):
            return self._forward(x)
        found = [self._features(key, x[i : i + 1]) for i, key in enumerate(keys)]
        joined = [_joined(parts, x) for parts in zip(*(one.parts for one in found), strict=True)]
        return pytree.tree_unflatten(joined, found[0].structure)

    def _features(self, key: Hashable, x: Tensor) -> Features:
        known = self._cache.of(self._name)
        full_key = (key, x.shape)
        if full_key in known:
            return known[full_key]
        with torch.inference_mode(False), torch.no_grad():  # what inference mode makes cannot be trained on
            output = self._forward(x)
        parts, structure = pytree.tree_flatten(output)
        features = Features(tuple("input" if one is x else one for one in parts), structure)
        self._cache.add(self._name, full_key, features, self._limit)
        return features


def _joined(parts: Sequence[Any], x: Tensor) -> Tensor | None:
    """Return what the slices of a batch (B, C, H, W) have in one place of the encoder's output."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return x if parts[0] == "input" else None


def content_keys(slices: Tensor) -> list[bytes]:
    """Return a key for each of (B, C, H, W) slices on the CPU: a hash of its values."""
    return [hashlib.blake2b(one.contiguous().numpy().tobytes(), digest_size=16).digest() for one in slices]


def leaves_whole(augmentation: Augmentation) -> bool:
    """Whether an augmentation changes nothing, so that a slice gives the same input every time."""
    a = augmentation
    jitters = a.jitter_p > 0 and max(a.brightness, a.contrast, a.gamma) > 0
    random = (a.flip_p, a.vertical_flip_p, a.rotation_deg, a.blur_p, a.noise_p, a.solarise_p, a.elastic_p, a.bias_p)
    return a.crop_scale == (1, 1) and not jitters and not any(random) and not a.cutout_p


def is_frozen(encoder: nn.Module) -> bool:
    """Whether nothing in an encoder learns."""
    return not any(parameter.requires_grad for parameter in encoder.parameters())


def weights_digest(encoder: nn.Module) -> bytes:
    """Return a hash of an encoder's structure, weights and statistics."""
    digest = hashlib.blake2b(str(encoder).encode(), digest_size=16)
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.digest()
