from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from raysweep.data.moments import Moments
from raysweep.data.pack import Pack
from raysweep.data.pack_format import IMAGE_DTYPES, SPLITS, Bucket
from raysweep.data.pack_writer import PackHeader, SliceHeader, SlicePixels, write_pack

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@st.composite
def slices(draw):
    channels = draw(st.sampled_from([1, 3]))
    drawn = []
    for number in range(draw(st.integers(1, 6))):
        dtype = np.dtype(draw(st.sampled_from(IMAGE_DTYPES)))
        height, width = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        elements = {"allow_nan": False, "allow_infinity": False, "min_value": -1000, "max_value": 1000}
        image = draw(
            arrays.arrays(
                dtype,
                (channels, height, width),
                elements=elements if dtype.kind == "f" else None,
                fill=st.nothing(),
            )
        )
        mask = draw(st.none() | arrays.arrays(np.uint8, (height, width)))
        header = SliceHeader(
            bucket=Bucket(channels, height, width, dtype.name),
            subject=f"{number}{draw(names)}",
            volume=draw(names),
            split=draw(st.sampled_from(SPLITS)),
            has_mask=mask is not None,
            annotated=draw(st.booleans()),
            frame=draw(st.integers(-1, 100)),
            slice_number=draw(st.integers(0, 500)),
            spacing_mm=draw(st.sampled_from([(float("nan"), float("nan")), (0.5, 1.25)])),
            labels=(draw(st.sampled_from([0.0, 1.0, float("nan")])),),
        )
        drawn.append((header, SlicePixels(image, mask, float(image.min()), float(image.max()))))
    return drawn


@settings(max_examples=60, deadline=None)
@given(slices())
def test_whatever_is_written_is_read_back_equal(drawn):
    headers, pixels = [header for header, _ in drawn], [one for _, one in drawn]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.h5"
        write_pack(path, PackHeader("any", 1, {}, ("label",)), headers, pixels, lambda labels: ("background",))
        pack = Pack.open(path)
        pack.verify()
        assert len(pack) == len(drawn)
        for row, (header, one) in enumerate(drawn):
            np.testing.assert_array_equal(pack.image(row), one.image)
            assert pack.image(row).dtype == one.image.dtype
            assert (pack.index.mask_position[row] >= 0) == (one.mask is not None)
            if one.mask is not None:
                np.testing.assert_array_equal(pack.mask(row), one.mask)
            for column in ("subject", "volume", "split", "frame", "slice_number", "annotated"):
                assert getattr(pack.index, column)[row] == getattr(header, column)
            np.testing.assert_array_equal(pack.index.spacing_mm[row], np.float32(header.spacing_mm))
            np.testing.assert_array_equal(pack.index.labels[row], np.float32(header.labels))


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays.arrays(np.int16, st.integers(1, 9)), min_size=1, max_size=5))
def test_merged_moments_are_those_of_all_values(parts):
    merged = Moments()
    for part in parts:
        merged = merged.merge(Moments.of(part))
    values = np.concatenate(parts).astype(np.float64)
    statistics = merged.statistics()
    np.testing.assert_allclose((statistics.mean, statistics.std), (values.mean(), values.std()), atol=1e-6)
    assert (statistics.min, statistics.max) == (values.min(), values.max())
