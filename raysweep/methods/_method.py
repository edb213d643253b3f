"""What a pretraining method is: a loss over views of a batch, around an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from raysweep.errors import PackError, StudyError
from raysweep.lazy import nn, torch
from raysweep.methods._batch import Batch, Run
from raysweep.methods._ranks import ALONE, Ranks
from raysweep.methods._settings import MethodSettings, View
from raysweep.settings import CONVOLUTIONAL, HIERARCHICAL, TRANSFORMER, Backbone

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from raysweep.data.pack import Pack
    from raysweep.sources.encoder import Encoder

_CALLS = ("forward", "feature_maps", "tokens")
"""What methods call of nets."""
ALL_ENCODERS = frozenset({CONVOLUTIONAL, HIERARCHICAL, TRANSFORMER})


class Method(ABC):
    """A pretraining method around an encoder.

    The training loop moves ``nets`` to the device and sets its mode; before each epoch it calls ``before_epoch``; at
    each step it draws the views, calls ``loss``, steps the optimiser over ``trainable`` and calls ``after_step``. What
    is random in a method comes from torch's global generator, which the loop saves and restores.

    Shapes: B batch, C channels, H and W of a view, D encoder features.
    """

    Settings: ClassVar[type[MethodSettings]]
    name: ClassVar[str]
    """Name in study files, as the registry lists it."""
    family: ClassVar[str]
    """What the loss does: contrastive, distillation, ..."""
    paper: ClassVar[str]
    """Authors, year and arXiv number."""
    recipe: ClassVar[int]
    """Version of the procedure, part of a stage's identity; raised when equal settings give other results."""
    cost: ClassVar[float]
    """Arithmetic of a step relative to supervised training on one view a slice, heads left out."""
    encoder_types: ClassVar[frozenset[str]] = ALL_ENCODERS
    """Types of encoder that the method can train."""

    divided_nets: ClassVar[tuple[str, ...]] = ("encoder",)
    """Nets whose rows the ranks of a data-parallel run share out, as they do of momentum copies: the large ones, each
    row of whose output follows from the same row of its input. Every rank computes the others on the whole batch."""

    nets: Any
    """Everything with parameters or buffers, a ModuleDict (whose entries mypy would take for tensors);
    ``nets["encoder"]`` is the encoder that gradients reach, and no gradient reaches what is named ``momentum_...``."""
    ranks: Ranks = ALONE
    """Who trains together."""
    features: Tensor | None = None
    """Encoder features (B, D) of the last batch, detached float32; what ``collapse_metrics`` takes."""

    def __init__(self, settings: MethodSettings, encoder: Encoder, run: Run) -> None:
        """Keep the encoder; a method builds its heads after this, torch's global generator deciding their weights.

        Args:
            settings: an instance of ``Settings``.
            encoder: the encoder to train, in place.
            run: sizes of the run.

        Raises:
            StudyError: if the method cannot train this type of encoder.
        """
        self.check_fit(encoder, run.image_size)
        self.settings = settings
        self.run = run
        self.num_features = encoder.num_features
        self.nets = nn.ModuleDict({"encoder": encoder})

    @classmethod
    def is_particular(cls) -> bool:
        """Whether there are encoders that the method cannot train."""
        return cls.encoder_types != ALL_ENCODERS

    @classmethod
    def check_backbone(cls, backbone: Backbone, image_size: int) -> None:
        """Check that the method can train a backbone, without its weights; it costs the import of torch.

        Raises:
            StudyError: if it cannot.
        """
        from raysweep.sources.encoder import build_weightless

        cls.check_fit(build_weightless(backbone, image_size), image_size)

    @classmethod
    def check_fit(cls, encoder: Encoder, image_size: int) -> None:
        """Check that the method can train an encoder on views of a size.

        Raises:
            StudyError: if it cannot.
        """
        if encoder.kind not in cls.encoder_types:
            raise StudyError(
                f"method {cls.name!r} trains {' or '.join(sorted(cls.encoder_types))} encoders, "
                f"but {encoder.backbone.encoder!r} is {encoder.kind}"
            )

    @classmethod
    def check_pack(cls, settings: MethodSettings, pack: Pack) -> None:
        """Check that a pack has what the method learns from.

        Raises:
            PackError: if its train split has no labels or masks but the settings ask for them.
        """
        target = settings.target()
        if target == "labels" and not pack.label_names:
            raise PackError(f"{pack.path} has no labels, but method {cls.name!r} learns from them")
        if target == "masks" and (
            len(pack.class_names) < 2 or not (pack.index.mask_position[pack.select("train")] >= 0).any()
        ):
            raise PackError(f"{pack.path} has no masks in its train split, but method {cls.name!r} learns from them")

    def join(self, ranks: Ranks) -> None:
        """Train together with others: from now on, calls of large nets are divided among the ranks."""
        self.ranks = ranks
        for net in self._divided():
            for name in _CALLS:
                if hasattr(net, name):
                    setattr(net, name, ranks.divided(getattr(net, name)))

    def add_gradients(self) -> None:
        """Give every rank the gradients of the whole batch."""
        partial = {id(parameter) for net in self._divided() for parameter in net.parameters()}
        trained = self.trainable()
        self.ranks.add_gradients(
            [parameter for parameter in trained if id(parameter) in partial],
            [parameter for parameter in trained if id(parameter) not in partial],
        )

    def _divided(self) -> list[nn.Module]:
        names = [name for net in self.divided_nets for name in (net, f"momentum_{net}")]
        return [self.nets[name] for name in names if name in self.nets]

    def views(self) -> tuple[View, ...]:
        """Return the views that ``loss`` expects, in order."""
        return self.settings.views(self.run.image_size)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, a scalar to differentiate, and detached scalar metrics."""

    def before_epoch(self, epoch: int, slices: Iterable[tuple[Tensor, Tensor]]) -> None:  # noqa: B027
        """Prepare an epoch (0-based), such as by clustering.

        Args:
            epoch: epochs trained before this one.
            slices: all slices of the data set in batches of ids (B,) and whole slices (B, C, H, W), unaugmented and
                read only if iterated over.
        """

    def after_step(self, step: int) -> None:  # noqa: B027 - many methods have nothing to do here
        """Update what no gradient updates, after optimiser step ``step`` (0-based)."""

    def encoder(self) -> Encoder:
        """Return the encoder that is handed on to snapshots and fine-tuning."""
        encoder: Encoder = self.nets["encoder"]
        return encoder

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that the optimiser updates."""
        return [parameter for parameter in self.nets.parameters() if parameter.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-identical continuation needs: queues, banks and centres are buffers of nets."""
        return {"nets": self.nets.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; keys must match strictly."""
        self.nets.load_state_dict(state["nets"])

    def _encode(self, view: Tensor) -> Tensor:
        """Return the features (B, D) of a view, with gradient, and keep them for the collapse metrics."""
        features: Tensor = self.nets["encoder"](view)
        self.features = features.detach().float()
        return features

    def _encode_map(self, view: Tensor) -> Tensor:
        """Return the last feature map (B, D, h, w) of a view; its mean is kept for the collapse metrics."""
        online: Encoder = self.nets["encoder"]
        last = online.feature_maps(view)[-1]
        self.features = last.detach().float().mean((2, 3))
        return last


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context without autocast on the device of ``x``: losses are computed in float32."""
    return torch.autocast(x.device.type, enabled=False)
