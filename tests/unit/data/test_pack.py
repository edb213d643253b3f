from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from packs import HEADER, slices_of, write_small_pack

from raysweep.data.pack import Pack, open_pack
from raysweep.data.pack_writer import write_pack
from raysweep.errors import PackError


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.h5"
    return path, write_small_pack(path)


def test_what_was_written_is_read_back(small):
    path, pixels = small
    pack = Pack.open(path)
    for row, written in enumerate(pixels):
        image = pack.image(row)
        assert image.dtype == written.image.dtype
        np.testing.assert_array_equal(image, written.image[None])
        assert pack.shape(row) == written.image.shape
        if written.mask is not None:
            np.testing.assert_array_equal(pack.mask(row), written.mask)
    assert (pack.dataset, pack.recipe, pack.options) == ("small", 3, {"option": [1, 2]})
    assert pack.class_names == ("class0", "class1", "class2")
    assert pack.label_names == ("ill", "old")
    np.testing.assert_array_equal(pack.index.frame, np.arange(8))
    np.testing.assert_array_equal(pack.index.spacing_mm, np.tile(np.float32([1.5, 1.25]), (8, 1)))
    np.testing.assert_array_equal(pack.index.labels[:, 0], [0, 0, 1, 1, 0, 0, 1, 1])
    assert np.isnan(pack.index.labels[:, 1]).all()


def test_index_tells_splits_and_annotation(small):
    pack = Pack.open(small[0])
    assert len(pack) == 8
    np.testing.assert_array_equal(pack.select("train"), [0, 1, 2, 3])
    np.testing.assert_array_equal(pack.select("train", annotated=True), [0, 2])
    np.testing.assert_array_equal(pack.select(annotated=False), [1, 3, 5, 7])
    with pytest.raises(PackError, match="'valid'; it must be one of train, val, test"):
        pack.select("valid")


def test_intensity_statistics_are_those_of_the_train_slices(small):
    path, pixels = small
    values = np.concatenate([one.image.astype(np.float64).ravel() for one in pixels[:4]])
    intensity = Pack.open(path).intensity
    assert intensity.mean == pytest.approx(values.mean())
    assert intensity.std == pytest.approx(values.std())
    assert (intensity.min, intensity.max) == (values.min(), values.max())


def test_pack_without_train_slices_has_statistics_of_its_own(tmp_path):
    headers, pixels = slices_of(8)
    write_pack(tmp_path / "test.h5", HEADER, headers[6:], pixels[6:], lambda labels: ("a", "b", "c"))
    assert Pack.open(tmp_path / "test.h5").intensity.max == max(one.image.max() for one in pixels[6:])


def test_views_and_columns_are_read_only_and_aligned(small):
    pack = Pack.open(small[0])
    for view in (pack.image(0), pack.image(1), pack.mask(0), pack.index.split, pack.index.annotated):
        assert not view.flags.writeable
        assert view.flags.aligned


def test_slice_without_mask_is_named(small):
    with pytest.raises(PackError, match=r"row 1 .*volume1, frame 1, slice 1.* has no mask"):
        Pack.open(small[0]).mask(1)


def test_one_process_opens_a_pack_once_until_it_changes(small):
    path, _ = small
    first = open_pack(path)
    assert open_pack(str(path)) is first
    assert pickle.loads(pickle.dumps(first)) is first
    write_small_pack(path, num_slices=6)
    assert len(open_pack(path)) == 6
    assert len(first) == 8
    np.testing.assert_array_equal(first.image(7).shape, (1, 9, 6))


def test_threads_share_one_pack(small):
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_pack(small[0]), range(32)))
    assert all(one is opened[0] for one in opened)


def test_equal_input_gives_equal_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_small_pack(tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_digest_depends_on_pixels_only_through_content(small, tmp_path):
    headers, pixels = slices_of()
    pixels[3].image[0, 0] += 1
    write_pack(tmp_path / "other.h5", HEADER, headers, pixels, lambda labels: ("class0", "class1", "class2"))
    assert Pack.open(tmp_path / "other.h5").digest != Pack.open(small[0]).digest


def test_whole_pack_verifies(small):
    Pack.open(small[0]).verify()


def test_flipped_pixel_byte_fails_verification_with_both_digests(small):
    path, _ = small
    with h5py.File(path) as file:
        offset = file["images/8x6_int16"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 3] ^= 1
    path.write_bytes(content)
    pack = Pack.open(path)
    with pytest.raises(PackError, match=rf"small.h5 is corrupt.*{pack.digest}.*sha256:"):
        pack.verify()


def test_changed_attribute_fails_verification(small):
    with h5py.File(small[0], "r+") as file:
        file.attrs.modify("dataset", np.bytes_("acdc!"))
    with pytest.raises(PackError, match="is corrupt"):
        Pack.open(small[0]).verify()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_pack_is_refused(small, share):
    path, _ = small
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(PackError, match=r"small.h5 is not a readable pack.*pack the data set again"):
        Pack.open(path)


def test_missing_pack_is_named(tmp_path):
    with pytest.raises(PackError, match=r"gone.h5 does not exist"):
        open_pack(tmp_path / "gone.h5")


@pytest.mark.parametrize("attribute", ["digest", "class_names", "format"])
def test_missing_attribute_is_named(small, attribute):
    with h5py.File(small[0], "r+") as file:
        del file.attrs[attribute]
    with pytest.raises(PackError, match=f"lacks the attributes {attribute}"):
        Pack.open(small[0])


def test_foreign_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["images"] = np.zeros((2, 3))
    (tmp_path / "text.h5").write_text("not HDF5")
    for name in ("foreign.h5", "text.h5"):
        with pytest.raises(PackError, match=f"{name} is not a readable pack"):
            Pack.open(tmp_path / name)


def test_other_schema_version_is_named(small):
    with h5py.File(small[0], "r+") as file:
        file.attrs.modify("schema_version", np.bytes_("9"))
    with pytest.raises(PackError, match="schema version 9; this raysweep reads versions 1 and 2"):
        Pack.open(small[0])


def test_index_that_points_outside_its_bucket_is_refused(small):
    with h5py.File(small[0], "r+") as file:
        file["index/position"][2] = 1000
    with pytest.raises(PackError, match="points outside the bucket"):
        Pack.open(small[0])


def test_links_out_of_the_file_are_refused(small, tmp_path):
    other = tmp_path / "other.h5"
    write_small_pack(other)
    with h5py.File(small[0], "r+") as file:
        del file["index/frame"]
        file["index/frame"] = h5py.ExternalLink(str(other), "/index/frame")
    with pytest.raises(PackError, match="/index/frame is a link"):
        Pack.open(small[0])


def test_object_columns_are_refused(small):
    with h5py.File(small[0], "r+") as file:
        del file["index/subject"]
        file["index"].create_dataset("subject", data=["a"] * 8, dtype=h5py.string_dtype())
    with pytest.raises(PackError, match="/index/subject holds object"):
        Pack.open(small[0])


def test_names_in_any_script_are_kept(tmp_path):
    headers, pixels = slices_of(2)
    object.__setattr__(headers[0], "volume", "Herz-ä-心")
    write_pack(tmp_path / "p.h5", HEADER, headers, pixels, lambda labels: ())
    assert Pack.open(tmp_path / "p.h5").index.volume.tolist() == ["Herz-ä-心", "volume1"]


def test_subject_in_two_splits_is_refused(tmp_path):
    headers, pixels = slices_of()
    object.__setattr__(headers[1], "split", "test")
    with pytest.raises(PackError, match="subject 's0' is in the splits 'train' and 'test'"):
        write_pack(tmp_path / "p.h5", HEADER, headers, pixels, lambda labels: ())


def test_failed_packing_leaves_no_file_and_keeps_the_old_one(small):
    path, _ = small
    before = path.read_bytes()
    headers, pixels = slices_of()

    def failing():
        yield from pixels[:3]
        raise PackError("the fourth slice is broken")

    with pytest.raises(PackError, match="fourth"):
        write_pack(path, HEADER, headers, failing(), lambda labels: ())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_killed_packing_leaves_nothing_under_the_final_name(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from packs import HEADER, slices_of
        from raysweep.data.pack_writer import write_pack
        headers, pixels = slices_of()
        def killed():
            yield from pixels[:3]
            os.kill(os.getpid(), signal.SIGKILL)
        write_pack(Path(sys.argv[1]), HEADER, headers, killed(), lambda labels: ())
        """
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path.cwd()), *sys.path])
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "killed.h5")],
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert process.returncode == -9
    assert not (tmp_path / "killed.h5").exists()


def test_slice_that_differs_from_its_header_is_refused(tmp_path):
    headers, pixels = slices_of()
    pixels[1] = pixels[0]
    with pytest.raises(PackError, match="volume1, frame 1, slice 1 was announced as 9x6_float32"):
        write_pack(tmp_path / "p.h5", HEADER, headers, pixels, lambda labels: ())


def test_empty_data_set_is_refused(tmp_path):
    with pytest.raises(PackError, match="nothing to pack"):
        write_pack(tmp_path / "p.h5", HEADER, [], [], lambda labels: ())
