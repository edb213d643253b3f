"""Batches from the mapped file and from a resident copy are the same bits."""

import numpy as np
import pytest
import torch

from raysweep.data import reader
from raysweep.data.pack import open_pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack
from raysweep.data.reader import ResidentReader, SliceReader, open_reader, resident_bytes, resident_or_mapped
from raysweep.data.slices import scaled_slice, scaled_slices
from raysweep.errors import PackError

CPU = torch.device("cpu")
DTYPES = ["uint8", "int8", "uint16", "int16", "int32", "float16", "float32", "float64"]


def write(path, dtypes=("uint16",), channels=1, num=6):
    """A pack of slices of two shapes; every other one has a mask; each channel has a scale of its own."""
    rng = np.random.default_rng(len(dtypes))
    headers, pixels = [], []
    for n in range(num):
        height, width = [(8, 6), (5, 9)][n % 2]
        dtype = np.dtype(dtypes[n % len(dtypes)])
        top = np.iinfo(dtype).max if dtype.kind in "iu" else 1000
        image = (rng.random((channels, height, width)) * top).astype(dtype)
        has_mask = n % 3 != 2
        mask = rng.integers(0, 3, (height, width)).astype(np.uint8) if has_mask else None
        headers.append(
            SliceHeader(Bucket(channels, height, width, str(dtype)), f"s{n}", f"v{n}", "train", has_mask, has_mask)
        )
        low = [float(c) for c in range(channels)]
        pixels.append(SlicePixels(image, mask, low, [0.7 * float(top) / (1 + c) for c in range(channels)]))
    write_pack(path, PackHeader("mixed", 1, {}), headers, pixels, lambda labels: ("background", "a", "b"))
    return open_pack(path)


@pytest.fixture(autouse=True)
def no_resident_packs(monkeypatch):
    monkeypatch.setattr(reader, "_resident", {})


@pytest.mark.parametrize("dtypes", [[kind] for kind in DTYPES] + [["uint16", "float32"]])
def test_resident_slices_and_masks_are_those_of_the_file_bit_for_bit(tmp_path, dtypes):
    pack = write(tmp_path / "pack.h5", dtypes)
    mapped, resident = SliceReader(pack), ResidentReader(pack, CPU)
    rows = np.array([4, 1, 0, 3])
    slices, masks = resident.slices(rows), resident.masks(rows)
    assert torch.equal(resident.shapes(rows), mapped.shapes(rows))
    for i, row in enumerate(rows):
        height, width = pack.shape(int(row))
        assert torch.equal(slices[i, :, :height, :width], scaled_slice(pack, int(row)))
        assert np.array_equal(masks[i, :height, :width].numpy(), pack.mask(int(row)))
    assert all(
        torch.equal(one, scaled_slice(pack, int(row))) for one, row in zip(mapped.slices(rows), rows, strict=True)
    )


def test_channels_with_scales_of_their_own_are_scaled_alike_alone_and_in_batches(tmp_path):
    pack = write(tmp_path / "pack.h5", channels=3)
    rows = np.array([0, 2, 4])  # of one shape
    alone = torch.stack([scaled_slice(pack, int(row)) for row in rows])
    assert torch.equal(scaled_slices(pack, rows), alone)
    assert torch.equal(ResidentReader(pack, CPU).slices(rows)[:, :, :8, :6], alone)
    assert alone[:, 0].max() < alone[:, 2].max()


@pytest.mark.parametrize("kind", [SliceReader, lambda pack: ResidentReader(pack, CPU)])
def test_a_slice_without_a_mask_is_named(tmp_path, kind):
    with pytest.raises(PackError, match=r"row 2 of .*has no mask"):
        kind(write(tmp_path / "pack.h5")).masks(np.array([0, 2]))


def test_a_cpu_reads_from_the_file(tmp_path):
    assert type(open_reader(write(tmp_path / "pack.h5"), CPU, 10**12)) is SliceReader


def test_a_pack_is_resident_where_it_fits_and_shared_by_the_stages_of_a_process(tmp_path):
    pack = write(tmp_path / "pack.h5")
    enough = int(resident_bytes(pack) / reader.RESIDENT_SHARE) + 1
    first = resident_or_mapped(pack, CPU, enough)
    assert isinstance(first, ResidentReader)
    assert resident_or_mapped(pack, CPU, enough) is first
    assert type(resident_or_mapped(pack, CPU, enough - 10)) is SliceReader
    assert first._pixels.nbytes + first._masks.nbytes == resident_bytes(pack)


def test_a_resident_pack_makes_room_for_the_next(tmp_path):
    first, second = write(tmp_path / "a.h5"), write(tmp_path / "b.h5", num=8)
    enough = int(resident_bytes(second) / reader.RESIDENT_SHARE) + 1
    resident_or_mapped(first, CPU, enough)
    resident_or_mapped(second, CPU, enough)
    assert [held.pack.digest for held in reader._resident.values()] == [second.digest]
    assert type(resident_or_mapped(first, CPU, 10)) is SliceReader
    assert not reader._resident  # a stage with less memory needs what the one before had left there
    resident_or_mapped(second, CPU, enough)
    twice = resident_or_mapped(first, CPU, 3 * enough)
    assert resident_or_mapped(first, CPU, 3 * enough) is twice
    assert len(reader._resident) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_holds_the_same_bits(tmp_path, dtype):
    pack = write(tmp_path / "pack.h5", [dtype])
    rows = np.array([4, 1, 0, 3])
    here, there = ResidentReader(pack, CPU), open_reader(pack, torch.device("cuda"), 10**9)
    assert isinstance(there, ResidentReader)
    assert torch.equal(there.slices(rows).cpu(), here.slices(rows))
    assert torch.equal(there.masks(rows).cpu(), here.masks(rows))
