"""Packs read as published studies read theirs: other scales, casts that wrap, squares of nearest neighbours."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from raysweep.data.pack import Pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_slices import PackHeader, SliceHeader, SlicePixels
from raysweep.data.pack_writer import write_pack
from raysweep.data.readings import read_as
from raysweep.data.slices import same_shape_batches, scaled_slice, scaled_slices
from raysweep.settings import Augmentation, Reading

SHAPES = ((5, 6), (5, 6), (8, 4))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Three 16-bit slices in two shapes, with intensities far above 255, and their masks."""
    rng = np.random.default_rng(0)
    headers = [
        SliceHeader(Bucket(1, *shape, "uint16"), f"s{n}", f"v{n}", "train", has_mask=True, annotated=True,
                    spacing_mm=(2.0, 1.0))
        for n, shape in enumerate(SHAPES)
    ]  # fmt: skip
    pixels = [
        SlicePixels(rng.integers(0, 1200, shape).astype(np.uint16), rng.integers(0, 3, shape).astype(np.uint8), 10, 900)
        for shape in SHAPES
    ]
    path = tmp_path_factory.mktemp("pack") / "p.h5"
    write_pack(path, PackHeader("any", 1, {}), headers, iter(pixels), lambda labels: ("background", "a", "b"))
    return Pack.open(path)


ROWS = np.array([0, 1])


def test_default_reading_is_the_pack_itself(pack):
    assert read_as(pack, Reading()) is pack


def test_eight_bit_reading_divides_by_255_whatever_the_range(pack):
    view = read_as(pack, Reading(intensities="eight-bit"))
    for row in range(3):
        stored = pack.image(row).astype(np.float32)
        assert stored.max() > 255
        np.testing.assert_allclose(scaled_slice(view, row).numpy(), stored / 255, rtol=1e-6)
    together = scaled_slices(view, ROWS)
    assert torch.equal(together, torch.stack([scaled_slice(view, 0), scaled_slice(view, 1)]))


def test_wrapped_reading_casts_to_eight_bits_so_that_256_becomes_0(pack):
    view = read_as(pack, Reading(intensities="wrapped"))
    for row in range(3):
        np.testing.assert_allclose(
            scaled_slice(view, row).numpy(), (pack.image(row) % 256) / np.float32(255), rtol=1e-6
        )
    assert float(scaled_slices(view, ROWS).max()) <= 1
    percentiles = scaled_slices(pack, ROWS)
    assert not torch.equal(percentiles, scaled_slices(view, ROWS)), "the corrected reading does not wrap"


def test_resized_slices_and_masks_are_nearest_neighbours_in_one_shape(pack):
    view = read_as(pack, Reading(resize_px=32))
    for row, (height, width) in enumerate(SHAPES):
        for y, x in ((0, 0), (31, 31), (10, 23), (17, 4)):
            source = (y * height // 32, x * width // 32)
            assert view.image(row)[0, y, x] == pack.image(row)[0][source]
            assert view.mask(row)[y, x] == pack.mask(row)[source]
        assert view.shape(row) == (32, 32)
        np.testing.assert_allclose(view.index.spacing_mm[row], [2.0 * height / 32, 1.0 * width / 32], rtol=1e-6)
    (batch,) = same_shape_batches(view, np.arange(3), 8)
    assert scaled_slices(view, batch).shape == (3, 1, 32, 32)


def test_a_view_keeps_its_reading_when_it_is_sent_to_another_process(pack):
    view = read_as(pack, Reading(intensities="wrapped", resize_px=32))
    again = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(again.image(2), view.image(2))
    assert (again.digest, len(again)) == (pack.digest, len(pack))


def test_crops_happen_as_often_as_asked_and_else_the_whole_slice_is_shown():
    from raysweep.data.augment_parameters import draw

    shapes = torch.tensor([[40, 60]] * 2000)
    settings = Augmentation(crop_scale=(0.2, 0.3), crop_p=0.25)
    parameters = draw(settings, shapes, torch.Generator().manual_seed(0))
    whole = (parameters.h == 40) & (parameters.w == 60)
    assert 0.72 < float(whole.float().mean()) < 0.78
    areas = (parameters.h * parameters.w)[~whole] / 2400
    assert 0.19 < float(areas.min()) < float(areas.max()) < 0.31
    always = draw(settings.model_copy(update={"crop_p": 1.0}), shapes, torch.Generator().manual_seed(0))
    assert torch.equal(always.boxes[~whole], parameters.boxes[~whole])


@pytest.mark.parametrize("reading", [Reading(intensities="wrapped"), Reading(intensities="eight-bit", resize_px=32)])
def test_resident_readers_hold_a_view_as_it_is_read_and_apart_from_the_pack(pack, reading):
    from raysweep.data.reader import SliceReader, resident_or_mapped

    view, cpu = read_as(pack, reading), torch.device("cpu")
    resident = resident_or_mapped(view, cpu, 1 << 30)
    assert resident is not resident_or_mapped(pack, cpu, 1 << 30)
    assert resident is resident_or_mapped(read_as(pack, reading), cpu, 1 << 30)
    mapped = SliceReader(view)
    height, width = (int(side) for side in mapped.shapes(ROWS)[0])
    assert torch.equal(resident.slices(ROWS)[..., :height, :width], mapped.slices(ROWS))
    assert torch.equal(resident.masks(ROWS)[..., :height, :width], mapped.masks(ROWS))
