"""Arithmetic for papers' equations, written out: plain numbers in loops, no tensor operation of the code under test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from raysweep.methods import Batch

Vector = Sequence[float]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a: Vector) -> list[float]:
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def units(rows: torch.Tensor) -> list[list[float]]:
    """The rows of a tensor, each of length 1, in double precision."""
    return [unit(row) for row in rows.detach().double().tolist()]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def softmax(values: Vector) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def log_softmax(values: Vector) -> list[float]:
    top = max(values)
    total = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - total for value in values]


def cross_entropy_of_positive(
    query: Vector, positive: Vector, negatives: Sequence[Vector], temperature: float
) -> float:
    """- log exp(q k / t) / (exp(q k / t) + sum exp(q n / t))."""
    up = math.exp(dot(query, positive) / temperature)
    down = up + sum(math.exp(dot(query, negative) / temperature) for negative in negatives)
    return -math.log(up / down)


def sinkhorn(scores: list[list[float]], epsilon: float, rounds: int) -> list[list[float]]:
    """Algorithm of Cuturi on exp(scores / epsilon): columns, then rows, scaled to equal sums."""
    q = [[math.exp(value / epsilon) for value in row] for row in scores]
    for _ in range(rounds):
        sums = [sum(column) for column in zip(*q, strict=True)]
        q = [[value / total for value, total in zip(row, sums, strict=True)] for row in q]
        q = [[value / sum(row) for value in row] for row in q]
    return q


def move_apart(method: Any) -> None:
    """Give momentum copies weights of their own, so that a mix-up of the branches shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, net in method.nets.items():
            if name.startswith("momentum_"):
                for parameter in net.parameters():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def loss_of(method: Any, batch: Batch, seed: int = 3) -> float:
    """The method's own loss under a seed of the global generator."""
    torch.manual_seed(seed)
    return float(method.loss(batch)["loss"].detach())
