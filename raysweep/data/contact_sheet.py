"""A contact sheet: slices of a pack with the outlines of their masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from raysweep.data.pack import Pack
from raysweep.errors import PackError

Array = npt.NDArray[Any]

PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""Colours of classes 1, 2, ..., repeated. Source: Okabe & Ito, Color Universal Design, 2008."""

_TILE_PX = 192
_CAPTION_PX = 34
_GAP_PX = 10
_LEGEND_PX = 44
_PAPER = (24, 26, 30)
_INK = (232, 234, 238)
_FAINT = (150, 156, 166)
_FILL_OPACITY = 0.28


def contact_sheet(pack: Pack, out_png: str | Path, num_slices: int = 24, seed: int = 0) -> Path:
    """Write a PNG of randomly drawn slices, annotated ones first, their classes outlined in colour.

    Raises:
        PackError: if ``num_slices`` is below 1.
    """
    if num_slices < 1:
        raise PackError(f"num_slices is {num_slices}; it must be at least 1")
    rows = _draw_rows(pack, num_slices, seed)
    columns = min(len(rows), max(1, round((len(rows) * 1.5) ** 0.5)))
    num_lines = -(-len(rows) // columns)
    width = max(columns * (_TILE_PX + _GAP_PX) + _GAP_PX, 3 * _TILE_PX)
    height = _LEGEND_PX + num_lines * (_TILE_PX + _CAPTION_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_legend(draw, pack, width)
    for position, row in enumerate(rows):
        left = _GAP_PX + position % columns * (_TILE_PX + _GAP_PX)
        top = _LEGEND_PX + position // columns * (_TILE_PX + _CAPTION_PX + _GAP_PX)
        tile = _tile(pack, row)
        sheet.paste(tile, (left + (_TILE_PX - tile.width) // 2, top + (_TILE_PX - tile.height) // 2))
        _draw_caption(draw, pack, row, (left, top + _TILE_PX + 3))
    out_png = Path(out_png)
    out_png.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out_png)
    return out_png


def _draw_rows(pack: Pack, num_slices: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pack))
    chosen = order[np.argsort(~pack.index.annotated[order], kind="stable")][:num_slices]
    return sorted(int(row) for row in chosen)


def _tile(pack: Pack, row: int) -> Image.Image:
    """Return a slice enlarged to the tile's size, its window the stored percentiles, its mask over it."""
    height, width = pack.shape(row)
    scale = _TILE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(_to_rgb(pack, row)).resize(size, Image.Resampling.BICUBIC)
    if pack.index.mask_position[row] < 0:
        return image
    mask = Image.fromarray(_shown_mask(pack, row)).resize(size, Image.Resampling.NEAREST)
    return Image.fromarray(_overlay(np.asarray(image), np.asarray(mask)))


def _shown_mask(pack: Pack, row: int) -> npt.NDArray[np.uint8]:
    """Return one class a pixel, later structures over earlier ones, what is to be ignored as background."""
    mask = np.array(pack.mask(row))
    if pack.ignore_label is not None:
        mask[mask == pack.ignore_label] = 0
    if pack.mask_encoding == "bits":
        highest = np.zeros(mask.shape, np.uint8)
        for bit in range(len(pack.class_names) - 1):
            highest[(mask >> bit & 1) > 0] = bit + 1
        return highest
    return mask


def _to_rgb(pack: Pack, row: int) -> npt.NDArray[np.uint8]:
    image = pack.image(row).astype(np.float32)
    low, high = pack.index.channel_low[row][:, None, None], pack.index.channel_high[row][:, None, None]
    shown = np.clip((image - low) / np.maximum(high - low, 1e-12), 0, 1)
    if len(shown) != 3:
        shown = np.repeat(shown[:1], 3, axis=0)
    return np.asarray(np.rint(255 * np.moveaxis(shown, 0, -1)), np.uint8)


def _overlay(image: Array, mask: Array) -> npt.NDArray[np.uint8]:
    colours = np.array([(0, 0, 0), *(PALETTE[code % len(PALETTE)] for code in range(255))], np.float32)
    opacity = np.where(mask > 0, _FILL_OPACITY, 0.0)
    opacity[_outline(mask)] = 1.0
    mixed = image + opacity[..., None] * (colours[mask] - image)
    return np.asarray(np.rint(mixed), np.uint8)


def _outline(mask: Array) -> Array:
    """Return the pixels of a class that touch another class, one enlarged pixel wide on each side."""
    padded = np.pad(mask, 1, mode="edge")
    edge = np.zeros(mask.shape, bool)
    for rows, columns in (
        (slice(0, -2), slice(1, -1)),
        (slice(2, None), slice(1, -1)),
        (slice(1, -1), slice(0, -2)),
        (slice(1, -1), slice(2, None)),
    ):
        edge |= padded[rows, columns] != mask
    outline: Array = edge & (mask > 0)
    return outline


def _draw_legend(draw: ImageDraw.ImageDraw, pack: Pack, width: int) -> None:
    font = ImageFont.load_default(15)
    title = f"{pack.dataset}: {len(pack)} slices, {int(pack.index.annotated.sum())} annotated"
    draw.text((_GAP_PX, 13), title, _INK, font)
    left = _GAP_PX + round(draw.textlength(title, font)) + 28
    for code, name in enumerate(pack.class_names[1:]):
        label = name.replace("_", " ")
        right = left + 20 + round(draw.textlength(label, font))
        if right > width - _GAP_PX:
            draw.text((left, 13), "...", _FAINT, font)
            return
        draw.rectangle((left, 15, left + 13, 28), PALETTE[code % len(PALETTE)])
        draw.text((left + 20, 13), label, _INK, font)
        left = right + 20


def _draw_caption(draw: ImageDraw.ImageDraw, pack: Pack, row: int, at: tuple[int, int]) -> None:
    index = pack.index
    subject = _fit(draw, str(index.subject[row]), ImageFont.load_default(13))
    details = [str(index.split[row])]
    if index.frame[row] >= 0:
        details.append(f"frame {index.frame[row]}")
    if index.slice_number.any():  # a pack of single images has no slice numbers to tell apart
        details.append(f"slice {index.slice_number[row]}")
    if not index.annotated[row]:
        details.append("unlabelled")
    draw.text(at, subject, _INK, ImageFont.load_default(13))
    draw.text((at[0], at[1] + 15), ", ".join(details), _FAINT, ImageFont.load_default(11))


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Any) -> str:
    """Shorten a text in its middle until it fits under a tile."""
    shown, keep = text, len(text)
    while keep > 4 and draw.textlength(shown, font) > _TILE_PX:
        keep -= 1
        shown = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return shown
