"""Single files: pydicom's own test files where the truth is known in another encoding, and files made here."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from raysweep.datasets._dicom import is_dicom, read_frames, read_header
from raysweep.errors import PackError
from tests.lookalikes._dicom_files import dataset_of, save_dicom

STORED = np.random.default_rng(0).integers(0, 4096, (64, 48), np.uint16)


def saved(tmp_path, pixels=STORED, name="a.dcm", **tags):
    return save_dicom(tmp_path / name, dataset_of(pixels, **tags))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda one: one.name)
def test_lossless_compression_gives_the_pixels_that_went_in(tmp_path, syntax):
    dataset = dataset_of(STORED, bits=12)
    dataset.compress(syntax, generate_instance_uid=False)
    path = save_dicom(tmp_path / "a.dcm", dataset)
    assert read_header(path).bucket.name == "64x48_uint16"
    np.testing.assert_array_equal(read_frames(path)[0, 0], STORED)


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_one_image_in_several_encodings_is_one_image(name):
    expected = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    np.testing.assert_array_equal(read_frames(get_testdata_path(name))[0, 0], expected)


def test_big_endian_file_gives_native_pixels():
    frames = read_frames(get_testdata_path("MR_small_bigendian.dcm"))
    assert frames.dtype.isnative
    np.testing.assert_array_equal(frames[0, 0], pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array)


def test_lossless_jpeg_is_decoded(tmp_path):
    """A lossless JPEG written by hand: predictor 1, one Huffman code of length 5 for each of 17 categories."""
    image = np.array([[100, 101, 99, 99], [100, 100, 100, 120]], np.uint8)
    dataset = dataset_of(image)
    dataset.PixelData = encapsulate([lossless_jpeg(image)])
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    np.testing.assert_array_equal(read_frames(save_dicom(tmp_path / "a.dcm", dataset))[0, 0], image)


def lossless_jpeg(image: np.ndarray) -> bytes:
    height, width = image.shape
    bits = ""
    for row in range(height):
        for column in range(width):
            left = image[row, column - 1] if column else (image[row - 1, 0] if row else 128)
            difference = int(image[row, column]) - int(left)
            category = abs(difference).bit_length()
            bits += f"{category:05b}"
            if category:
                value = difference if difference > 0 else difference + (1 << category) - 1
                bits += f"{value:0{category}b}"
    bits += "1" * (-len(bits) % 8)
    entropy = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\x00")
    frame = bytes([8, *divmod(height, 256), *divmod(width, 256), 1, 1, 0x11, 0])
    huffman = bytes([0x00, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    scan = bytes([1, 1, 0x00, 1, 0, 0])
    segments = ((0xC3, frame), (0xC4, huffman), (0xDA, scan))
    body = b"".join(bytes([0xFF, mark, *divmod(len(data) + 2, 256)]) + data for mark, data in segments)
    return b"\xff\xd8" + body + entropy + b"\xff\xd9"


def test_jpeg_gives_what_pillow_decodes(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray((STORED >> 4).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    dataset = dataset_of((STORED >> 4).astype(np.uint8))
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    frames = read_frames(save_dicom(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(frames[0, 0], np.asarray(Image.open(buffer)))


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "expected"),
    [
        (1, 0, "uint16", STORED),
        (1, -1024, "int16", STORED.astype(int) - 1024),
        (2, 100, "uint16", STORED.astype(int) * 2 + 100),
        (32, 10, "uint32", STORED.astype(int) * 32 + 10),
        (0.5, 0.25, "float32", STORED * 0.5 + 0.25),
    ],
)
def test_values_are_rescaled_into_the_smallest_type_that_holds_them(tmp_path, slope, intercept, dtype, expected):
    path = saved(tmp_path, bits=12, RescaleSlope=slope, RescaleIntercept=intercept)
    assert read_header(path).bucket.dtype == dtype
    frames = read_frames(path)
    assert frames.dtype == dtype
    np.testing.assert_array_equal(frames[0, 0], expected)


def test_monochrome1_is_turned_over_within_its_bits(tmp_path):
    path = saved(tmp_path, bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_frames(path)[0, 0], 4095 - STORED)
    signed = (STORED.astype(int) - 2048).astype(np.int16)
    path = saved(tmp_path, signed, bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_frames(path)[0, 0], -1 - signed)


def test_values_beyond_the_stored_bits_are_refused_not_clipped(tmp_path):
    pixels = STORED.copy()
    path = saved(tmp_path, pixels.astype(np.int16), bits=8)
    with pytest.raises(PackError, match=r"a.dcm cannot be read as a DICOM image: it holds values from"):
        read_frames(path)


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagerPixelSpacing"])
def test_spacing_is_that_of_rows_and_columns(tmp_path, tag):
    assert read_header(saved(tmp_path, **{tag: [0.5, 0.25]})).spacing_mm == (0.5, 0.25)
    assert np.isnan(read_header(saved(tmp_path)).spacing_mm).all()


def test_enhanced_multi_frame_has_spacing_and_rescaling_in_functional_groups():
    header = read_header(get_testdata_path("liver_1frame.dcm"))
    assert header.bucket.name == "512x512_uint8"
    assert np.isfinite(header.spacing_mm).all()


def test_per_frame_rescaling_is_applied_frame_by_frame(tmp_path):
    dataset = dataset_of(np.stack([STORED, STORED]), bits=12)
    groups = []
    for intercept in (0, -1000):
        item = pydicom.Dataset()
        item.RescaleSlope, item.RescaleIntercept = 1, intercept
        group = pydicom.Dataset()
        group.PixelValueTransformationSequence = [item]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    path = save_dicom(tmp_path / "a.dcm", dataset)
    frames = read_frames(path)
    np.testing.assert_array_equal(frames[:, 0], np.stack([STORED, STORED.astype(int) - 1000]))
    assert not read_header(path).has_time


@pytest.mark.parametrize("name", ["examples_palette.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_colour_images_become_rgb(name):
    header = read_header(get_testdata_path(name))
    frames = read_frames(get_testdata_path(name))
    assert frames.shape == (header.num_frames, 3, header.bucket.height, header.bucket.width)
    assert frames.dtype == header.bucket.dtype


def test_truncated_and_foreign_files_are_named(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(PackError, match=r"a.dcm cannot be read as a DICOM image"):
        read_frames(path)
    (tmp_path / "b.dcm").write_text("no DICOM")
    assert not is_dicom(tmp_path / "b.dcm")
    with pytest.raises(PackError, match="it does not begin as DICOM files do"):
        read_header(tmp_path / "b.dcm")


def test_compression_that_nothing_decodes_is_named():
    with pytest.raises(PackError, match=r"JPGExtended.dcm cannot be read.*no installed decoder"):
        read_frames(get_testdata_path("JPGExtended.dcm"))


def test_places_lie_along_the_normal_of_the_slices(tmp_path):
    tags = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [30, 5, 7]}
    assert read_header(saved(tmp_path, **tags)).place_mm == pytest.approx(-30)


def get_testdata_path(name: str):
    from pathlib import Path

    return Path(get_testdata_file(name))
