from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydantic import ValidationError

from raysweep.data.pack import Pack
from raysweep.datasets import build_pack, folder
from raysweep.errors import PackError


def save(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def grey(seed: int = 0, shape=(6, 8), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def write_set(source: Path, num_images: int = 10, num_masks: int | None = None, suffix: str = ".png") -> None:
    for number in range(num_images):
        save(source / "images" / f"case{number // 2}_{number}{suffix}", grey(number))
        if number < (num_images if num_masks is None else num_masks):
            save(source / "masks" / f"case{number // 2}_{number}.png", grey(number) % 3)


def pack_of(source: Path, **options) -> Pack:
    out = source.parent / "p.h5"
    build_pack("folder", source, out, options, workers=1)
    return Pack.open(out)


@pytest.fixture
def source(tmp_path):
    write_set(tmp_path / "set")
    return tmp_path / "set"


def test_images_and_masks_are_matched_by_stem(source):
    pack = pack_of(source)
    assert pack.class_names == ("background", "class_1", "class_2")
    for row, volume in enumerate(pack.index.volume):
        number = int(volume.split("_")[1])
        np.testing.assert_array_equal(pack.image(row)[0], grey(number))
        np.testing.assert_array_equal(pack.mask(row), grey(number) % 3)


def test_subjects_never_straddle_splits_and_the_draw_is_seeded(source):
    packs = [pack_of(source, subject="(case[0-9]+)_", seed=seed) for seed in (0, 0, 2)]
    for pack in packs:
        places = set(zip(pack.index.subject.tolist(), pack.index.split.tolist(), strict=True))
        assert len(places) == 5
        assert {split for _, split in places} == {"train", "val", "test"}
    assert (packs[0].index.split == packs[1].index.split).all()
    assert (packs[0].index.split != packs[2].index.split).any()


def test_images_without_masks_train_unless_their_subject_is_held_out(tmp_path):
    write_set(tmp_path / "set", num_images=20, num_masks=9)
    index = pack_of(tmp_path / "set", subject="(case[0-9]+)_").index
    split_of = dict(zip(index.subject.tolist(), index.split.tolist(), strict=True))
    assert all(split_of[f"case{number}"] == "train" for number in range(5, 10))
    assert index.annotated.sum() == 9
    assert all(split == split_of[subject] for subject, split in zip(index.subject, index.split, strict=True))


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("img_dir", "ann_dir")])
def test_published_splits_are_kept(tmp_path, images, masks):
    for seed, split in enumerate(("train", "val", "test")):
        save(tmp_path / "set" / images / split / "1.png", grey(seed))
        save(tmp_path / "set" / masks / split / "1.png", grey(seed) % 2)
    pack = pack_of(tmp_path / "set")
    assert pack.index.split.tolist() == ["train", "val", "test"]
    assert pack.index.volume.tolist() == ["train/1", "val/1", "test/1"]


def test_published_splits_that_share_a_subject_are_refused(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / "set" / "images" / split / f"anna_{split}.png", grey())
    with pytest.raises(PackError, match="subject 'anna' is in the splits 'train' and 'test'"):
        pack_of(tmp_path / "set", subject="([a-z]+)_")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.PNG", grey()),
        ("a.bmp", grey()),
        ("a.png", grey(dtype=np.uint16) * 300),
        ("a.tif", grey(dtype=np.uint16) * 300),
        ("a.TIFF", grey(dtype=np.float32)),
        ("a.tif", grey(dtype=np.dtype(">u2")) * 300),
        ("a.png", grey(shape=(6, 8, 3))),
        ("a.tif", grey(shape=(6, 8, 3), dtype=np.uint16)),
    ],
)
def test_pixels_keep_their_type_and_value(tmp_path, name, array):
    save(tmp_path / "set" / "images" / name, array)
    pack = pack_of(tmp_path / "set")
    expected = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    np.testing.assert_array_equal(pack.image(0), expected)
    assert pack.image(0).dtype == expected.dtype.newbyteorder("=")
    assert pack.num_channels == len(expected)


def test_grey_and_colour_images_are_not_mixed(source):
    save(source / "images" / "colour.png", grey(shape=(6, 8, 3)))
    with pytest.raises(PackError, match=r"case0_0.png has 1 channel and .*colour.png has 3 channels"):
        pack_of(source)


def test_masks_of_0_and_255_suggest_the_option_that_reads_them(tmp_path):
    save(tmp_path / "set" / "images" / "a.png", grey())
    save(tmp_path / "set" / "masks" / "a.png", (grey() % 2 * 255).astype(np.uint8))
    with pytest.raises(PackError, match=r"labels 0, 255.* mask_values, such as \{255: 1\}"):
        pack_of(tmp_path / "set")
    with pytest.raises(PackError, match=r"a.png has the labels 0, 255; allowed are 0 to 1.*\{255: 1\}"):
        pack_of(tmp_path / "set", classes=("background", "cell"))
    pack = pack_of(tmp_path / "set", mask_values={255: 1})
    np.testing.assert_array_equal(pack.mask(0), grey() % 2)
    assert pack.class_names == ("background", "class_1")


def test_labels_that_mask_values_leaves_out_are_named(source):
    with pytest.raises(PackError, match="has the labels 0, 1, 2; allowed are 0, 1"):
        pack_of(source, mask_values={1: 1})


def test_mask_of_another_size_is_named(source):
    save(source / "masks" / "case0_0.png", grey(shape=(6, 9)) % 2)
    with pytest.raises(PackError, match=r"case0_0.png has 6 x 9 pixels, its image case0_0.png 6 x 8"):
        pack_of(source)


def test_jpeg_masks_are_refused(source):
    (source / "masks" / "case0_0.png").unlink()
    save(source / "masks" / "case0_0.jpg", grey())
    with pytest.raises(PackError, match=r"case0_0.jpg is a JPEG, whose compression changes labels"):
        pack_of(source)


def test_mask_without_image_is_named(source):
    save(source / "masks" / "other.png", grey())
    with pytest.raises(PackError, match=r"other.png has no image of the same stem"):
        pack_of(source)


def test_two_files_of_one_stem_are_named(source):
    save(source / "images" / "case0_0.tif", grey())
    with pytest.raises(PackError, match=r"case0_0.tif and case0_0.png have the same stem"):
        pack_of(source)


def test_empty_folders_say_what_is_expected(tmp_path):
    with pytest.raises(PackError, match="has no folder images/"):
        pack_of(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(PackError, match="holds no image; allowed are the endings"):
        pack_of(tmp_path)


@pytest.mark.parametrize("keep", [0, 40, 70])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_truncated_image_is_named(tmp_path, keep, suffix):
    path = tmp_path / "set" / "images" / f"a{suffix}"
    save(path, grey(shape=(40, 50)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PackError, match=f"a{suffix} cannot be read as an image"):
        pack_of(tmp_path / "set")


def test_nan_is_named(tmp_path):
    image = np.zeros((6, 8), np.float32)
    image[2, 5] = np.inf
    save(tmp_path / "set" / "images" / "a.tif", image)
    with pytest.raises(PackError, match=r"a.tif has a value that is not finite at row 2, column 5"):
        pack_of(tmp_path / "set")


def test_subject_that_the_expression_does_not_find_is_named(source):
    with pytest.raises(PackError, match=r"finds no subject in the stem of .*case0_0.png"):
        pack_of(source, subject="(patient[0-9]+)")


def test_expression_without_one_group_is_refused():
    with pytest.raises(ValidationError, match="it has 0 groups"):
        folder.Options(subject="case")


def test_spacing_is_that_of_the_option_or_unknown(source):
    assert np.isnan(pack_of(source).index.spacing_mm).all()
    np.testing.assert_array_equal(pack_of(source, spacing_mm=(0.5, 0.25)).index.spacing_mm[0], [0.5, 0.25])
