"""A beating heart seen in short-axis slices: shapes in mm, tissues that look alike, MRI's defects.

Image coordinates are (rows, columns); the heart's own are turned so that the septum lies at negative u.
Everything of a patient follows from (seed, patient number), whatever the number of patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_SUPERSAMPLING = 2
_NUM_CLASSES = 4
RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE = 1, 2, 3

# Mean endocardial radius (mm), wall thickness (mm), contraction, right ventricle's size, by diagnosis.
_GROUPS = {
    "NOR": (24.0, 8.0, 0.34, 1.0),
    "MINF": (27.0, 7.5, 0.22, 1.0),
    "DCM": (33.0, 6.5, 0.12, 1.1),
    "HCM": (20.0, 13.0, 0.40, 0.95),
    "RV": (23.0, 8.0, 0.30, 1.35),
}


@dataclass(frozen=True)
class Cine:
    """One patient: images int16 and masks uint8, both (frames, slices, rows, columns)."""

    images: npt.NDArray[np.int16]
    masks: npt.NDArray[np.uint8]
    spacing_mm: float
    slice_spacing_mm: float
    group: str
    systole: int
    """Index of the end-systolic frame; frame 0 is end diastole."""


@dataclass(frozen=True)
class _Heart:
    """One patient's heart: lengths in mm, angles in radians."""

    centre: tuple[float, float]
    drift: tuple[float, float]
    angle: float
    elongation: float
    endocardium: float
    wall: float
    contraction: float
    right_size: float
    right_offset: float
    wobble: Array
    scar_angle: float
    scar_depth: float
    papillary: Array


def synthesise_cine(
    seed: int, patient: int, groups: tuple[str, ...], num_slices: int, num_frames: int, size: tuple[int, int]
) -> Cine:
    """Draw one patient.

    Args:
        seed: Seed of the data set.
        patient: Patient number; patients are independent of each other.
        groups: Diagnoses that patients have in turn.
        num_slices: Slices from base to apex.
        num_frames: Time points of one heart beat, the first at end diastole.
        size: Smallest and largest number of rows and of columns.
    """
    rng = np.random.default_rng([seed, patient])
    # Shifted every ten patients: splits go by the last digit, and each must see every group.
    group = groups[(patient + patient // 10) % len(groups)]
    rows, columns = (int(number) for number in rng.integers(size[0] // 4, size[1] // 4 + 1, 2) * 4)
    spacing_mm = round(float(rng.uniform(1.2, 1.8)), 3)
    heart = _draw_heart(rng, group, (rows * spacing_mm, columns * spacing_mm))
    tissue = _draw_tissues(rng)
    y, x = _grid(rows, columns, spacing_mm)
    images = np.empty((num_frames, num_slices, rows, columns), np.int16)
    masks = np.empty((num_frames, num_slices, rows, columns), np.uint8)
    surroundings = _draw_surroundings(rng)
    gain = np.exp(0.35 * _smooth(rng, (rows, columns), 3)) * rng.uniform(180, 520)
    noise = rng.uniform(0.03, 0.09)
    for z in range(num_slices):
        level = z / max(1, num_slices - 1)
        background = _surroundings(rng, y, x, level, surroundings, tissue)
        for frame in range(num_frames):
            phase = 0.5 * (1 - np.cos(2 * np.pi * frame / num_frames))
            signal, labels = _beat(y, x, level, phase, heart, tissue, background)
            images[frame, z] = _scan(rng, _downsample(_blur(signal)), gain, noise)
            masks[frame, z] = _majority(labels)
    slice_spacing_mm = round(float(rng.uniform(6, 10)), 2)
    return Cine(images, masks, spacing_mm, slice_spacing_mm, group, num_frames // 2)


def _draw_heart(rng: np.random.Generator, group: str, extent_mm: tuple[float, float]) -> _Heart:
    radius, wall, contraction, right_size = _GROUPS[group]
    scale = min(1.0, min(extent_mm) / 155) * rng.uniform(0.82, 1.08)
    return _Heart(
        centre=(extent_mm[0] * rng.uniform(-0.1, 0.1), extent_mm[1] * rng.uniform(-0.02, 0.16)),
        drift=(rng.uniform(-8, 8), rng.uniform(-8, 8)),
        angle=float(np.deg2rad(rng.uniform(-55, 25))),
        elongation=rng.uniform(0.86, 1.14),
        endocardium=scale * radius * rng.uniform(0.88, 1.12),
        wall=scale * wall * rng.uniform(0.85, 1.15),
        contraction=contraction * rng.uniform(0.85, 1.15),
        right_size=right_size * rng.uniform(0.85, 1.15),
        right_offset=rng.uniform(0.72, 0.95),
        wobble=rng.normal(0, 0.025, (2, 2)),
        scar_angle=rng.uniform(-np.pi, np.pi),
        scar_depth=0.35 if group == "MINF" else 0.0,
        papillary=rng.uniform([-1.5, 0.5], [-0.6, 1.4]),
    )


def _draw_tissues(rng: np.random.Generator) -> dict[str, float]:
    """Signal of each tissue, blood near 1; ranges overlap, so that intensity alone tells no tissue apart."""
    ranges = {
        "blood": (0.8, 1.2),
        "right_blood": (0.7, 1.15),
        "muscle": (0.28, 0.6),
        "lung": (0.06, 0.28),
        "liver": (0.3, 0.8),
        "fat": (0.75, 1.4),
        "stomach": (0.15, 1.1),
    }
    return {name: float(rng.uniform(*limits)) for name, limits in ranges.items()}


def _draw_surroundings(rng: np.random.Generator) -> dict[str, Array]:
    """Centre (v, u), radii and angle of each organ around the heart, as shares of half the field of view."""
    mean = {
        "chest": (0.1, 0.0, 1.15, 1.2, 0.0),
        "mediastinum": (-0.35, -0.3, 0.75, 0.5, 0.4),
        "liver": (0.95, -0.55, 0.55, 0.85, 0.2),
        "stomach": (0.95, 0.6, 0.42, 0.5, -0.3),
        "aorta": (0.55, 0.72, 0.14, 0.14, 0.0),
        "vessel": (-0.6, -0.65, 0.13, 0.16, 0.0),
    }
    spread = np.array([0.1, 0.1, 0.06, 0.06, 0.3])
    organs = {name: np.array(values) + rng.uniform(-1, 1, 5) * spread for name, values in mean.items()}
    for name in ("aorta", "vessel"):
        organs[name][2:4] = mean[name][2] * rng.uniform(0.75, 1.25) * np.array([1, rng.uniform(0.85, 1.2)])
    return organs


def _grid(rows: int, columns: int, spacing_mm: float) -> tuple[Array, Array]:
    """Return centred coordinates of the supersampled pixels in mm, (rows, 1) and (1, columns)."""
    step = spacing_mm / _SUPERSAMPLING
    y = (np.arange(rows * _SUPERSAMPLING) + 0.5) * step - rows * spacing_mm / 2
    x = (np.arange(columns * _SUPERSAMPLING) + 0.5) * step - columns * spacing_mm / 2
    return y[:, None].astype(np.float32), x[None, :].astype(np.float32)


def _surroundings(
    rng: np.random.Generator,
    y: Array,
    x: Array,
    level: float,
    organs: dict[str, Array],
    tissue: dict[str, float],
) -> Array:
    """Return the signal of everything but the heart at one level, supersampled."""
    half_y, half_x = float(y[-1, 0]), float(x[0, -1])
    texture = _smooth(rng, (y.shape[0], x.shape[1]), 14)
    coarse = _smooth(rng, (y.shape[0], x.shape[1]), 5)

    def inside(name: str, grow: float = 1.0, wobble: float = 0.0) -> Array:
        v, u, radius_v, radius_u, angle = organs[name]
        distance = _ellipse(y / half_y - v, x / half_x - u, radius_v * grow, radius_u * grow, angle)
        return distance + wobble * coarse

    signal = tissue["lung"] * (1 + 0.5 * np.abs(texture))
    signal = np.where(inside("mediastinum", 1 - 0.5 * level, 0.25) < 1, tissue["fat"] * (0.9 + 0.2 * texture), signal)
    signal = np.where(inside("liver", 0.85 + 0.35 * level, 0.12) < 1, tissue["liver"] * (1 + 0.12 * texture), signal)
    signal = np.where(inside("stomach", 1.0, 0.2) < 1, tissue["stomach"] * (1 + 0.3 * texture), signal)
    signal = np.where(inside("vessel", 1 - 0.4 * level) < 1, tissue["right_blood"], signal)
    signal = np.where(inside("aorta") < 1, tissue["blood"] * 0.95, signal)
    chest = inside("chest", 1.0, 0.05)
    signal = np.where(chest > 0.86, tissue["muscle"] * (1 + 0.35 * coarse), signal)
    signal = np.where(chest > 0.97, tissue["fat"] * (1 + 0.15 * texture), signal)
    return np.where(chest > 1.12, 0.02, signal)


def _beat(
    y: Array,
    x: Array,
    level: float,
    phase: float,
    heart: _Heart,
    tissue: dict[str, float],
    background: Array,
) -> tuple[Array, Array]:
    """Draw the heart at one level and phase over the background; return signal and labels, supersampled.

    The wall thickens as the cavity shrinks because the muscle's area is kept.
    """
    depth = min(1.0, level + 0.08 * phase)
    taper = np.sqrt(1 - (0.84 * depth) ** 2)
    dy = y - heart.centre[0] - heart.drift[0] * level
    dx = x - heart.centre[1] - heart.drift[1] * level
    u = np.cos(heart.angle) * dx + np.sin(heart.angle) * dy
    v = (np.cos(heart.angle) * dy - np.sin(heart.angle) * dx) * heart.elongation
    radius, wobble, scar = _polar(u, v, heart)
    relaxed = heart.endocardium * taper
    endocardium = relaxed * (1 - heart.contraction * phase * (1 - scar))
    wall = heart.wall * (1 - 0.25 * depth)
    epicardium = np.sqrt(endocardium**2 + (relaxed + wall) ** 2 - relaxed**2) * (1 - 0.3 * scar * phase * 0.2)
    endocardium, epicardium = endocardium * wobble, epicardium * wobble
    outer = float((relaxed + wall) * (1 - 0.35 * heart.contraction * phase))
    right_size = heart.right_size * (1 - 0.55 * heart.contraction * phase) * max(0.0, 1.05 - depth**2)
    right = _ellipse(v, u + heart.right_offset * outer, 1.08 * outer * right_size**0.5, 1.0 * outer * right_size, 0.15)

    signal = np.where((np.minimum(right, radius / epicardium) < 1.22), 0.5 * (tissue["fat"] + background), background)
    signal = np.where(right < 1.12, tissue["muscle"] * 1.15, signal)
    signal = np.where(right < 1, tissue["right_blood"] * (0.9 + 0.1 * np.cos(u * 0.9) * np.cos(v * 0.8)), signal)
    signal = np.where(radius < epicardium, tissue["muscle"], signal)
    signal = np.where(radius < endocardium, tissue["blood"], signal)
    for angle in heart.papillary:
        at_u, at_v = 0.62 * relaxed * np.cos(angle), 0.62 * relaxed * np.sin(angle)
        shrink = 1 - 0.8 * heart.contraction * phase
        pillar = np.hypot(u - at_u * shrink, v - at_v * shrink)
        signal = np.where((pillar < 0.17 * relaxed) & (radius < endocardium), tissue["muscle"] * 1.1, signal)
    labels = np.where((right < 1), RIGHT_VENTRICLE, 0)
    labels = np.where(radius < epicardium, MYOCARDIUM, labels)
    return signal, np.where(radius < endocardium, LEFT_VENTRICLE, labels)


def _polar(u: Array, v: Array, heart: _Heart) -> tuple[Array, Array, Array]:
    """Return the radius (mm), the boundary's relative wobble, and the share of scar, by direction."""
    radius = np.hypot(u, v) + 1e-6
    unit = (u + 1j * v) / radius
    direction = unit
    wobble = np.ones_like(radius)
    for real, imaginary in heart.wobble:  # twice and three times the angle: an oval and a rounded triangle
        direction = direction * unit
        wobble += (direction * (real - 1j * imaginary)).real
    facing = (unit * np.exp(-1j * heart.scar_angle)).real
    return radius, wobble, heart.scar_depth * 2 * np.clip(facing, 0, 1) ** 2


def _ellipse(v: Array, u: Array, radius_v: float, radius_u: float, angle: float) -> Array:
    """Return the distance from an ellipse's centre, 1 on its boundary."""
    cosine, sine = np.cos(angle), np.sin(angle)
    distance: Array = np.hypot(
        (cosine * v - sine * u) / max(radius_v, 1e-3), (sine * v + cosine * u) / max(radius_u, 1e-3)
    )
    return distance


def _smooth(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Array:
    """Return a smooth random field: standard normal nodes of ``cells`` x ``cells``, cosine-interpolated."""
    nodes = rng.normal(0, 1, (cells + 1, cells + 1))
    return np.asarray(_weights(shape[0], cells) @ nodes @ _weights(shape[1], cells).T, np.float32)


def _weights(length: int, cells: int) -> Array:
    position = np.linspace(0, cells, length, endpoint=False)
    left = position.astype(int)
    share = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    weights = np.zeros((length, cells + 1))
    weights[np.arange(length), left] = 1 - share
    weights[np.arange(length), left + 1] = share
    return weights


def _blur(signal: Array) -> Array:
    """Blur by about one pixel, the scanner's finite resolution."""
    for axis in (0, 1):
        signal = 0.5 * signal + 0.25 * (np.roll(signal, 1, axis) + np.roll(signal, -1, axis))
        signal = 0.5 * signal + 0.25 * (np.roll(signal, 2, axis) + np.roll(signal, -2, axis))
    return signal


def _blocks(array: Array) -> Array:
    rows, columns = (size // _SUPERSAMPLING for size in array.shape)
    return array.reshape(rows, _SUPERSAMPLING, columns, _SUPERSAMPLING)


def _downsample(signal: Array) -> Array:
    mean: Array = _blocks(signal).mean(axis=(1, 3))
    return mean


def _majority(labels: Array) -> npt.NDArray[np.uint8]:
    """Return the class that covers most of each pixel."""
    cover = np.stack([_blocks(labels == code).sum(axis=(1, 3)) for code in range(_NUM_CLASSES)])
    return np.asarray(cover.argmax(axis=0), np.uint8)


def _scan(rng: np.random.Generator, signal: Array, gain: Array, noise: float) -> npt.NDArray[np.int16]:
    """Return the magnitude image: receive-coil gain, complex noise (Rician magnitude), integer units."""
    real = signal + noise * rng.standard_normal(signal.shape, np.float32)
    imaginary = noise * rng.standard_normal(signal.shape, np.float32)
    return np.asarray(np.clip(np.rint(np.hypot(real, imaginary) * gain), 0, 4095), np.int16)
