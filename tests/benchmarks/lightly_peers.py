"""Pretraining as lightly's documentation shows it: its transforms, a DataLoader, its heads and losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightly import loss as losses
from lightly import transforms
from lightly.models import utils
from lightly.models.modules import heads
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

GREY = {"normalize": {"mean": [0.5], "std": [0.25]}}
Views = list[Tensor]


@dataclass(frozen=True)
class Peer:
    """One method: a transform from a PIL image to views, and a loss of a model over views."""

    transform: Callable[[int], Any]
    build: Callable[[nn.Module, int, Mapping[str, int]], nn.Module]


class Slices(Dataset[Any]):
    """Grey 8-bit images in memory, each turned into views."""

    def __init__(self, slices: list[np.ndarray], transform: Any) -> None:
        from PIL import Image

        self._images = [Image.fromarray((np.clip(one, 0, 1) * 255).astype(np.uint8)) for one in slices]
        self._transform = transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._images[index])


def loader(slices: list[np.ndarray], transform: Any, batch_size: int) -> DataLoader[Any]:
    """Return a loader in this process: on one core another process would only take turns with it."""
    return DataLoader(Slices(slices, transform), batch_size=batch_size, shuffle=True, drop_last=True)


class SimCLR(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, heads.SimCLRProjectionHead(width, width, 128)
        self.criterion = losses.NTXentLoss(temperature=0.1)

    def forward(self, views: Views) -> Tensor:
        first, second = (self.head(self.encoder(view)) for view in views)
        loss: Tensor = self.criterion(first, second)
        return loss


class BYOL(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, heads.BYOLProjectionHead(width, sizes["hidden"], sizes["output"])
        self.predictor = heads.BYOLPredictionHead(sizes["output"], sizes["hidden"], sizes["output"])
        self.momentum = copy.deepcopy(nn.ModuleList([self.encoder, self.head]))
        utils.deactivate_requires_grad(self.momentum)
        self.criterion = losses.NegativeCosineSimilarity()

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.encoder, self.momentum[0], 0.99)
        utils.update_momentum(self.head, self.momentum[1], 0.99)
        predictions = [self.predictor(self.head(self.encoder(view))) for view in views]
        with torch.no_grad():
            targets = [self.momentum[1](self.momentum[0](view)) for view in views]
        loss: Tensor = self.criterion(predictions[0], targets[1]) + self.criterion(predictions[1], targets[0])
        return loss


class MoCo(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, heads.MoCoProjectionHead(width, width, 128)
        self.momentum = copy.deepcopy(nn.ModuleList([self.encoder, self.head]))
        utils.deactivate_requires_grad(self.momentum)
        self.criterion = losses.NTXentLoss(temperature=0.2, memory_bank_size=(sizes["queue"], 128))

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.encoder, self.momentum[0], 0.999)
        utils.update_momentum(self.head, self.momentum[1], 0.999)
        query = self.head(self.encoder(views[0]))
        with torch.no_grad():
            shuffled, shuffle = utils.batch_shuffle(views[1])
            key = utils.batch_unshuffle(self.momentum[1](self.momentum[0](shuffled)), shuffle)
        loss: Tensor = self.criterion(query, key)
        return loss


class BarlowTwins(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = heads.BarlowTwinsProjectionHead(width, sizes["hidden"], sizes["output"])
        self.criterion = losses.BarlowTwinsLoss()

    def forward(self, views: Views) -> Tensor:
        first, second = (self.head(self.encoder(view)) for view in views)
        loss: Tensor = self.criterion(first, second)
        return loss


class DINO(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        shape = (width, sizes["hidden"], sizes["bottleneck"], sizes["prototypes"])
        self.encoder, self.head = encoder, heads.DINOProjectionHead(*shape, freeze_last_layer=1)
        self.momentum = nn.ModuleList([copy.deepcopy(encoder), heads.DINOProjectionHead(*shape)])
        utils.deactivate_requires_grad(self.momentum)
        self.criterion = losses.DINOLoss(output_dim=sizes["prototypes"])

    def forward(self, views: Views) -> Tensor:
        utils.update_momentum(self.encoder, self.momentum[0], 0.996)
        utils.update_momentum(self.head, self.momentum[1], 0.996)
        with torch.no_grad():
            teacher = [self.momentum[1](self.momentum[0](view)) for view in views[:2]]
        student = [self.head(self.encoder(view)) for view in views]
        loss: Tensor = self.criterion(teacher, student, epoch=0)
        return loss


def _byol_views(size: int) -> Any:
    return transforms.BYOLTransform(
        transforms.BYOLView1Transform(input_size=size, **GREY), transforms.BYOLView2Transform(input_size=size, **GREY)
    )


PEERS: Mapping[str, Peer] = {
    "simclr": Peer(lambda size: transforms.SimCLRTransform(input_size=size, **GREY), SimCLR),
    "byol": Peer(_byol_views, BYOL),
    "moco-v2": Peer(lambda size: transforms.MoCoV2Transform(input_size=size, **GREY), MoCo),
    "barlow-twins": Peer(_byol_views, BarlowTwins),
    "dino": Peer(
        lambda size: transforms.DINOTransform(
            global_crop_size=size, local_crop_size=max(32, size // 2), n_local_views=6, **GREY
        ),
        DINO,
    ),
}
"""Transforms with their defaults but for the size and the normalisation of one channel."""
