"""What packers share: run lengths, streamed percentiles, splits, tables, grey images in colour files."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from raysweep.datasets import _packing
from raysweep.datasets._percentiles import streamed_range
from raysweep.datasets._pool import MEMORY_BYTES, choose_workers
from raysweep.datasets._rasters import read_header, read_pixels
from raysweep.datasets._run_length import decode_runs
from raysweep.datasets._series import windowed
from raysweep.datasets._splits import draw_splits, read_list, splits_of_lists, strata_by_labels
from raysweep.datasets._survey import intensity_range
from raysweep.datasets._tables import read_table
from raysweep.errors import PackError
from tests.lookalikes.siim_acr import run_lengths

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_run_lengths_give_the_mask_they_came_from(mask):
    np.testing.assert_array_equal(decode_runs(run_lengths(mask), *mask.shape, "relative", "x"), mask)


@pytest.mark.parametrize(("start", "text"), [("from 0", "1 2 5 1"), ("from 1", "2 2 6 1"), ("relative", "1 2 2 1")])
def test_starts_count_from_the_first_pixel_or_from_the_run_before(start, text):
    np.testing.assert_array_equal(decode_runs(text, 3, 2, start, "x"), [[0, 0], [1, 0], [1, 1]])


def test_text_that_is_no_run_lengths_is_named():
    for text in ("1 2 3", "a b", "-1"):
        with pytest.raises(PackError, match="picture has the run lengths"):
            decode_runs(text, 3, 2, "relative", "picture")


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(DTYPES))
def test_streamed_percentiles_are_those_of_all_parts(data, dtype):
    elements = {"allow_nan": False, "min_value": -1000, "max_value": 1000} if dtype[0] == "f" else None
    whole = data.draw(arrays.arrays(dtype, st.integers(1, 60), elements=elements))
    parts = np.array_split(whole, data.draw(st.integers(1, len(whole))))
    np.testing.assert_allclose(
        streamed_range(lambda: iter(parts)), intensity_range(whole.astype(np.float64)), rtol=1e-6
    )


def test_windows_map_their_edges_to_black_and_white():
    image = np.array([[-1000, -1, 0, 50, 100, 900]])
    np.testing.assert_array_equal(windowed(image, [(50, 100)])[0], [[0, 0, 0, 128, 255, 255]])


def test_every_stratum_gives_its_share():
    strata = {f"p{n}": n % 4 == 0 for n in range(80)}
    split_of = draw_splits(strata, val_fraction=0.1, test_fraction=0.25, seed=0)
    assert Counter(split_of.values()) == {"train": 52, "val": 8, "test": 20}
    counted = Counter((split_of[name], stratum) for name, stratum in strata.items())
    assert (counted["test", True], counted["val", True]) == (5, 2)


def test_draw_depends_on_the_seed_and_not_on_the_order_of_subjects():
    names = [f"p{n}" for n in range(40)]
    first = draw_splits(dict.fromkeys(names, 0), val_fraction=0.2, test_fraction=0.2, seed=0)
    assert draw_splits(dict.fromkeys(reversed(names), 0), val_fraction=0.2, test_fraction=0.2, seed=0) == first
    assert draw_splits(dict.fromkeys(names, 0), val_fraction=0.2, test_fraction=0.2, seed=1) != first


def test_subject_counts_for_the_rarest_label_of_any_of_its_images():
    nan = float("nan")
    vectors = [("a", (1, 0)), ("a", (0, 1)), ("b", (1, 0)), ("c", (1, nan)), ("d", (0, 0)), ("e", (nan, nan))]
    assert strata_by_labels(vectors) == {"a": 1, "b": 0, "c": 0, "d": -1, "e": -2}


def test_lists_that_share_a_file_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x.png 0 1\ny.png,1\n\n")
    (tmp_path / "b.txt").write_text("y.png\n")
    assert read_list(tmp_path / "a.txt") == ["x.png", "y.png"]
    with pytest.raises(PackError, match=r"b.txt names 'y.png', which .*a.txt names too"):
        splits_of_lists({"train": tmp_path / "a.txt", "test": tmp_path / "b.txt"})


def test_tables_are_read_with_byte_order_mark_blanks_and_quotes(tmp_path):
    (tmp_path / "t.csv").write_bytes('\ufeffimage, "x" \n"a, b", 1 \n'.encode())
    assert next(read_table(tmp_path / "t.csv", ("image",)))["image"] == "a, b"
    with pytest.raises(PackError, match=r"no column 'imagee'. Did you mean 'image'\?"):
        list(read_table(tmp_path / "t.csv", ("imagee",)))
    with pytest.raises(PackError, match="does not exist"):
        list(read_table(tmp_path / "u.csv"))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_grey_image_in_any_colour_mode_is_grey(tmp_path, mode):
    image = np.random.default_rng(0).integers(0, 255, (5, 4), np.uint8)
    Image.fromarray(image).convert(mode).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png", as_grey=True).name == "5x4_uint8"
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png", as_grey=True)[0], image)


def test_transparent_image_is_not_taken_for_grey(tmp_path):
    image = np.full((5, 4, 4), 255, np.uint8)
    image[0, 0, 3] = 10
    Image.fromarray(image).save(tmp_path / "a.png")
    with pytest.raises(PackError, match="is transparent in places"):
        read_pixels(tmp_path / "a.png", as_grey=True)


def test_many_headers_are_read_by_processes_in_their_order(tmp_path, monkeypatch):
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.zeros((3 + number, 4), np.uint8)).save(paths[-1])
    monkeypatch.setattr(_packing, "_MIN_SCAN", 1)
    monkeypatch.setattr(_packing, "_SCAN_STEP", 2)
    found = _packing.scanner(2)(read_header, [(path,) for path in paths])
    assert [bucket.height for bucket in found] == [3, 4, 5, 6, 7]


def test_fewer_processes_read_large_files():
    cores = choose_workers(None, 0)
    assert cores >= 1
    assert choose_workers(None, MEMORY_BYTES) == 1
    assert choose_workers(7, MEMORY_BYTES) == 7
    with pytest.raises(PackError, match="workers is 0"):
        choose_workers(0, 0)
