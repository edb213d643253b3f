"""Chains: what a source starts from, and the pretrainings that follow."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from raysweep import zoo
from raysweep.errors import did_you_mean
from raysweep.settings import Normalisation, Settings

_WEIGHTS_SUFFIXES = (".pt", ".pth", ".th", ".tar", ".ckpt", ".bin", ".safetensors", ".pkl", ".npz", ".index")


def is_weights_file(text: str) -> bool:
    """Whether weights written as one text are a file rather than a name."""
    return "/" in text or text.endswith(_WEIGHTS_SUFFIXES)


class WeightsStep(Settings):
    """Initial weights: a file, a name of the zoo, or a timm name with its tag."""

    file: str | None = None
    """A checkpoint of any layout (see the README); relative paths start at the study file's folder."""
    timm: str | None = None
    """A timm name with its exact tag, such as resnet50.a1_in1k."""
    zoo: str | None = None
    """A name that `raysweep weights list` shows, such as moco-v2."""
    prefix: str | None = None
    """What stands before the encoder's keys in a file that holds several; by default it is found."""
    normalisation: Normalisation | None = None
    """Input the weights were trained on: mean and std, or a name (imagenet, unit, half, or one of the zoo); by default
    what the zoo or timm records, and ImageNet's for a file."""

    @field_validator("normalisation", mode="before")
    @classmethod
    def _named_input(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        inputs = {**zoo.INPUTS, **{name: entry.input for name, entry in zoo.weights().items()}}
        if value not in inputs:
            raise ValueError(
                f"no input is named {value!r}.{did_you_mean(value, inputs)} Allowed: {', '.join(zoo.INPUTS)}, a name "
                "of the zoo, or mean and std"
            )
        return {"mean": inputs[value].mean, "std": inputs[value].std}

    @model_validator(mode="after")
    def _one_origin(self) -> WeightsStep:
        if sum(origin is not None for origin in (self.file, self.timm, self.zoo)) != 1:
            raise ValueError("give one of file, timm and zoo")
        if self.file is not None and "://" in self.file:
            raise ValueError(
                f"{self.file!r} is a URI; weights are read from a path that every node sees, or from the store: copy "
                "the file to such a folder, or `raysweep weights import` what the zoo knows"
            )
        if self.timm is not None and "." not in self.timm:
            raise ValueError(f"timm name {self.timm!r} has no tag; write it in full, such as {self.timm}.a1_in1k")
        if self.prefix is not None and self.file is None:
            raise ValueError("prefix belongs to a file: the zoo and timm know theirs")
        if self.zoo is not None and self.zoo not in zoo.weights():
            raise ValueError(
                f"no weights are named {self.zoo!r}.{did_you_mean(self.zoo, zoo.weights())} `raysweep weights list` "
                f"shows all; a timm name carries its tag ({self.zoo}.a1_in1k), and a file is given by its path"
            )
        return self


class PretrainStep(Settings):
    """One pretraining stage of a source."""

    pack: str
    """Pack to pretrain on: its train split, annotated or not."""
    method: str | None = None
    """Pretraining method; null takes the grid's method axis."""
    epochs: int | None = Field(None, ge=0)
    """Epochs; null takes the grid's pretrain_epochs axis."""
    of_epochs: int | None = Field(None, ge=1)
    """Length of the run that the snapshot after `epochs` is taken of, whose learning rate it follows; null for a run of
    its own."""

    @model_validator(mode="after")
    def _snapshot_lies_in_its_run(self) -> PretrainStep:
        if self.of_epochs is not None and (self.epochs is None or self.epochs > self.of_epochs):
            raise ValueError("of_epochs is the length of a run, and epochs one of its epochs: give both")
        return self


class Step(Settings):
    """One step of a source, written as `random`, `{weights: ...}` or `{pretrain: ...}`."""

    random: bool = False
    """Start from random weights."""
    weights: WeightsStep | None = None
    """Start from these weights."""
    pretrain: PretrainStep | None = None
    """Train on a pack."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if value == "random":
            return {"random": True}
        if isinstance(value, dict) and isinstance(value.get("weights"), str):
            return {**value, "weights": {_origin(value["weights"]): value["weights"]}}
        if isinstance(value, str):
            raise ValueError(f"a step is random, {{weights: ...}} or {{pretrain: ...}}, not {value!r}")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        if sum((self.random, self.weights is not None, self.pretrain is not None)) != 1:
            raise ValueError("a step is exactly one of random, weights and pretrain")
        return self


def _origin(text: str) -> str:
    """Return which key of `WeightsStep` weights written as one text belong to."""
    if is_weights_file(text):
        return "file"
    return "timm" if "." in text else "zoo"


def as_chain(value: Any) -> Any:
    """Return a source as a list of steps, though the study may write a single step without one."""
    return value if isinstance(value, list | tuple) else [value]


def starts_once(steps: list[Step]) -> list[Step]:
    """Check that a chain starts once, and goes on with pretrainings.

    Raises:
        ValueError: if it does not.
    """
    for position, step in enumerate(steps):
        if (step.pretrain is None) != (position == 0):
            raise ValueError("a source starts with random or weights, and every further step is a pretrain")
    return steps
