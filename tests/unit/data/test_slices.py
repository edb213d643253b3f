"""From pack rows to tensors: whole batches as slice by slice, every pixel type, places in volumes."""

import numpy as np
import pytest
import torch

from raysweep.data.augment import apply, draw
from raysweep.data.pack import open_pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.data.slices import relative_positions, scaled_slice, scaled_slices, shapes_of
from raysweep.errors import PackError
from raysweep.settings import Augmentation
from tests.unit.data.packs import write_small_pack

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]


def pack_of(path, arrays):
    headers = [
        SliceHeader(
            Bucket(1, *a.shape, str(a.dtype)), "s", "v", "train", has_mask=False, annotated=False, slice_number=n
        )
        for n, a in enumerate(arrays)
    ]
    pixels = [SlicePixels(a, None, float(a.min()), float(a.max())) for a in arrays]
    write_pack(path, PackHeader("one", 1, {}, ()), headers, pixels, lambda labels: ())
    return open_pack(path)


@pytest.fixture
def pack(tmp_path):
    write_small_pack(tmp_path / "small.h5")
    return open_pack(tmp_path / "small.h5")


def test_slices_of_one_bucket_become_one_tensor_equal_bit_for_bit(pack):
    rows = np.array([6, 0, 4])
    batch = scaled_slices(pack, rows)
    assert isinstance(batch, torch.Tensor)
    assert torch.equal(batch, torch.stack([scaled_slice(pack, int(row)) for row in rows]))


def test_slices_of_several_buckets_stay_a_list(pack):
    slices = scaled_slices(pack, np.array([0, 1, 2]))
    assert [tuple(s.shape) for s in slices] == [(1, 8, 6), (1, 9, 6), (1, 8, 6)]
    assert all(torch.equal(s, scaled_slice(pack, row)) for row, s in enumerate(slices))
    assert shapes_of(pack, np.array([0, 1])).tolist() == [[8, 6], [9, 6]]
    with pytest.raises(PackError, match="are in 2 buckets"):
        pack.images(np.array([0, 1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pixel_type_keeps_its_whole_range(tmp_path, dtype):
    """The extremes of the type, and neighbouring values in between, stay apart from the pack to the batch."""
    kind = np.dtype(dtype)
    low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else (-1000.0, 3000.0)
    values = np.linspace(float(low), float(high), 64).reshape(8, 8).astype(kind)
    pack = pack_of(tmp_path / "pack.h5", [values, values[::-1].copy()])
    settings = Augmentation(crop_scale=(1, 1), flip_p=0, jitter_p=0, blur_p=0)
    rows = np.array([0, 1])
    p = draw(settings, shapes_of(pack, rows), torch.Generator())
    batch = apply(scaled_slices(pack, rows), p, 8)
    expected = torch.from_numpy((values.astype(np.float64) - float(low)) / (float(high) - float(low))).float()
    torch.testing.assert_close(batch[0, 0], expected, atol=1e-3 if kind.itemsize < 4 else 1e-6, rtol=0)
    assert float(batch.min()) == pytest.approx(0, abs=1e-6)
    assert float(batch.max()) == pytest.approx(1, abs=1e-6)
    assert len(batch[0].unique()) == len(np.unique(values))


def test_16_bit_values_above_8_bits_neither_wrap_nor_merge(tmp_path):
    values = np.arange(0, 64 * 900, 900, dtype=np.uint16).reshape(8, 8)
    slices = scaled_slices(pack_of(tmp_path / "pack.h5", [values]), np.array([0]))
    assert bool((slices.flatten().diff() > 0).all())


def test_positions_count_along_each_slices_own_volume(tmp_path):
    arrays = [np.arange(16, dtype=np.uint8).reshape(4, 4)] * 4
    assert relative_positions(pack_of(tmp_path / "pack.h5", arrays), np.array([3, 0])).tolist() == [0.875, 0.125]
