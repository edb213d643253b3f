"""Methods small enough to train in milliseconds, on slices drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from raysweep import registry
from raysweep.data import augment
from raysweep.methods import Batch, Method, Ranks, Run
from raysweep.settings import CONVOLUTIONAL, Backbone, Optimisation
from raysweep.sources.encoder import Encoder, build_encoder
from raysweep.stages.optimisation import build_optimiser

NUM_SLICES, NUM_CLASSES, NUM_LABELS, SOURCE_PX = 12, 3, 4, 40
CONV = Backbone(encoder="test_resnet")
VIT = Backbone(encoder="test_vit", options={"patch_size": 8})
_WIDTHS = ("_features", "num_prototypes")
_SMALL = {"head_layers": 2, "decoder_depth": 1, "predictor_depth": 1, "decoder_heads": 2, "predictor_heads": 2}


def small_settings(name: str, **given: Any) -> Any:
    """A method's default settings, its heads narrowed and its small crops fewer."""
    model = registry.load("methods", name).METHOD.Settings
    small = {}
    for field, info in model.model_fields.items():
        if field.endswith(_WIDTHS) and isinstance(info.default, int):
            small[field] = min(info.default, 32)
        elif field in _SMALL:
            small[field] = _SMALL[field]
        elif field == "num_small_crops":
            small[field] = 2
    return model.model_validate(small | given)


def backbone_for(name: str, channels: int = 1) -> Backbone:
    """A tiny encoder of a type that a method can train, convolutional if it can."""
    kind = registry.load("methods", name).METHOD
    chosen = CONV if CONVOLUTIONAL in kind.encoder_types else VIT
    return chosen.model_copy(update={"channels": channels})


def small_run(total_steps: int = 20, image_size: int = 32, num_slices: int = NUM_SLICES) -> Run:
    """A run of two steps an epoch."""
    return Run(
        num_slices=num_slices,
        batch_size=NUM_SLICES,
        steps_per_epoch=2,
        total_steps=total_steps,
        image_size=image_size,
        num_classes=NUM_CLASSES,
        num_labels=NUM_LABELS,
    )


def build_method(
    name: str, *, seed: int = 0, backbone: Backbone | None = None, run: Run | None = None, **given: Any
) -> Any:
    """A small method around a tiny encoder."""
    torch.manual_seed(seed)
    encoder: Encoder = build_encoder(backbone or backbone_for(name))
    kind = registry.load("methods", name).METHOD
    size = 64 if name == "spark" else 32  # which needs squares to hide and squares to see
    return kind(small_settings(name, **given), encoder, run or small_run(image_size=size))


def draw_batch(method: Method, *, seed: int = 0, channels: int = 1, step: int = 10, num: int = NUM_SLICES) -> Batch:
    """Views of random slices, with everything that may be known of them."""
    source = torch.Generator().manual_seed(7)
    coarse = torch.rand(num, channels, 10, 10, generator=source)
    slices = torch.nn.functional.interpolate(coarse, SOURCE_PX, mode="bilinear").contiguous()
    masks = (slices.mean(1) * NUM_CLASSES).long().clamp(0, NUM_CLASSES - 1)
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.tensor([(SOURCE_PX, SOURCE_PX)] * num)
    views, of_masks, places = [], [], []
    for view in method.views():
        p = augment.draw(view.augmentation, shapes, generator)
        images, labels = augment.apply(slices, p, view.size_px or method.run.image_size, masks=masks)
        views.append((images - 0.5) / 0.25)
        of_masks.append(labels)
        places.append(augment.places(p))
    return Batch(
        views=views,
        ids=torch.arange(num),
        step=step,
        places=places,
        positions=(torch.arange(num) % 4 + 0.5) / 4,
        labels=(torch.rand(num, NUM_LABELS, generator=source) > 0.5).float(),
        masks=of_masks,
    )


def whole_slices(batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The slices as a method sees them before an epoch."""
    yield from zip(batch.ids.split(5), batch.views[0].split(5), strict=True)


def train_together(method: Method, batch: Batch, steps: range, ranks: Ranks) -> list[float]:
    """Take steps of equal length down the gradient with other ranks, the same in each, and return their losses."""
    optimiser, losses = torch.optim.SGD(method.trainable(), lr=0.03), []
    for step in steps:
        if step == 0:
            method.join(ranks)
            ranks.align(method.nets)
            with ranks.together(0):
                method.before_epoch(0, whole_slices(batch))
        with ranks.together(step):
            loss = method.loss(Batch(**{**batch.__dict__, "step": step + 10}))["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        method.add_gradients()
        torch.nn.utils.clip_grad_norm_(method.trainable(), 1.0)
        optimiser.step()
        method.after_step(step)
        losses.append(float(loss.detach()))
    return losses


def optimiser_of(method: Method, lr: float = 1e-3) -> torch.optim.Optimizer:
    """The same optimiser for every method."""
    return build_optimiser(method.trainable(), Optimisation(lr=lr))


def train(method: Method, optimiser: torch.optim.Optimizer, batch: Batch, steps: range) -> list[float]:
    """Take steps on one batch and return their losses."""
    losses = []
    for step in steps:
        if step % method.run.steps_per_epoch == 0:
            method.before_epoch(step // method.run.steps_per_epoch, whole_slices(batch))
        result = method.loss(Batch(**{**batch.__dict__, "step": step}))
        optimiser.zero_grad(set_to_none=True)
        result["loss"].backward()
        optimiser.step()
        method.after_step(step)
        losses.append(float(result["loss"].detach()))
    return losses
