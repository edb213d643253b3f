"""What the zoo says of one set of published weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLACES = ("https://", "http://127.0.0.1", "http://localhost")

Study = Literal["kalapos-2022", "taher-2021", "taher-2025", "foundation"]
"""Who compares these weights: Kalapos & Gyires-Toth 2022, Hosseinzadeh Taher et al. 2021 and their successor, or nobody
yet: weights a study of today would add."""


@dataclass(frozen=True)
class Input:
    """What an encoder was trained to see: channels on the [0, 1] scale, minus ``mean``, over ``std``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Input((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Means and standard deviations of ImageNet's channels."""
UNIT = Input((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The [0, 1] scale as it is."""
HALF = Input((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The [-1, 1] scale."""


INPUTS = {"imagenet": IMAGENET, "unit": UNIT, "half": HALF}
"""Inputs by the names that studies may use."""


@dataclass(frozen=True)
class Published:
    """One set of published weights. A fact that could not be verified is None, never a guess.

    Raises:
        ValueError: if a field contradicts another or is not of its form.
    """

    name: str
    title: str
    architecture: str
    """timm name of the encoder, without a tag."""
    objective: str
    """What they were trained to do, as a method is named in papers."""
    dataset: str
    paper: str
    published: str
    """Page that publishes them, for people."""
    studies: tuple[Study, ...]
    input: Input = IMAGENET
    domain: Literal["natural", "medical"] = "natural"
    """Kind of images they were trained on last."""
    adapted_from: str | None = None
    """What the training started from, where it started from other weights."""
    timm: str | None = None
    """timm name with its tag, where timm publishes them."""
    urls: tuple[str, ...] = ()
    """Files to download; several where a checkpoint consists of several."""
    size_bytes: int | None = None
    """Size of the one file, where known; else recorded when it is first fetched or imported."""
    sha256: str | None = None
    """Checksum of the one file, in hexadecimal, where known; else recorded when it is first fetched or imported."""
    prefix: str | None = None
    """What stands before the encoder's keys; None to find it."""
    member: str | None = None
    """File to read where an archive is published."""
    licence: str | None = None
    """As their publisher states it; None where that was not verified."""
    click_through: str | None = None
    """What a person must do first, where a plain download does not work."""
    note: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"zoo name {self.name!r} may hold lower-case letters, digits and hyphens only")
        if "." in self.architecture:
            raise ValueError(f"{self.name}: the architecture {self.architecture!r} must be written without a tag")
        if self.timm is not None and self.timm.split(".")[0] != self.architecture:
            raise ValueError(f"{self.name}: timm name {self.timm!r} is not of architecture {self.architecture!r}")
        if self.timm is not None and (self.urls or self.sha256):
            raise ValueError(f"{self.name}: timm knows where its weights are; give either timm or urls")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.name}: {self.sha256!r} is not a SHA-256 in hexadecimal")
        if not (self.timm or self.urls or self.click_through):
            raise ValueError(f"{self.name}: without timm or urls, say in click_through how a person gets the file")
        if bad := [url for url in (*self.urls, self.published) if not url.startswith(_PLACES)]:
            raise ValueError(f"{self.name}: {bad[0]!r} is not an https address")
        if len(self.input.mean) != len(self.input.std):
            raise ValueError(f"{self.name}: as many means as standard deviations are needed")

    @property
    def is_downloadable(self) -> bool:
        """Whether `raysweep weights fetch` gets them without a person."""
        return self.timm is not None or bool(self.urls and not self.click_through)


def start_of(entry: Published, digest: str | None) -> dict[str, Any]:
    """Return how a stage's configuration names published weights: by content, with the input they were trained on.

    Args:
        entry: the weights.
        digest: digest of the published file, where it is known; without one the name stands in for it, so that a plan
            can be made before the weights are there.
    """
    if entry.timm is not None:
        return {"weights": entry.timm}
    seen = {"mean": list(entry.input.mean), "std": list(entry.input.std)}
    named = {"prefix": entry.prefix} if entry.prefix else {}
    member = {"member": entry.member} if entry.member else {}
    return {"weights": digest or f"zoo:{entry.name}", **named, **member, "normalisation": seen}
