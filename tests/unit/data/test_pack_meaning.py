"""What a pack says about masks, labels, channels and equal images."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from packs import HEADER, slices_of
from PIL import Image

from raysweep.data.contact_sheet import PALETTE, contact_sheet
from raysweep.data.inspect import describe
from raysweep.data.pack import Pack
from raysweep.data.pack_format import Bucket
from raysweep.data.pack_writer import SliceHeader, SlicePixels, write_pack
from raysweep.data.slices import scaled_slice
from raysweep.errors import PackError


def write(path, header=HEADER, change=lambda headers, pixels: None):
    headers, pixels = slices_of()
    change(headers, pixels)
    write_pack(path, header, headers, pixels, lambda labels: ("background", "a", "b"))
    return Pack.open(path)


def test_meaning_of_masks_and_labels_is_kept(tmp_path):
    header = replace(
        HEADER,
        label_kind="multi-class",
        label_scopes=("subject", "slice"),
        mask_encoding="bits",
        ignore_label=255,
        split_rule="by hand",
    )
    pack = write(tmp_path / "p.h5", header)
    assert (pack.label_kind, pack.label_scopes) == ("multi-class", ("subject", "slice"))
    assert (pack.mask_encoding, pack.ignore_label, pack.split_rule) == ("bits", 255, "by hand")


def test_unless_said_otherwise_labels_belong_to_slices(tmp_path):
    assert write(tmp_path / "p.h5").label_scopes == ("slice", "slice")


def test_unknown_meaning_is_refused(tmp_path):
    with pytest.raises(PackError, match="allowed are multi-label, multi-class"):
        write(tmp_path / "p.h5", replace(HEADER, label_kind="ordinal"))
    with pytest.raises(PackError, match="for 2 names"):
        write(tmp_path / "p.h5", replace(HEADER, label_scopes=("slice",)))


def test_ignored_pixels_name_no_class_and_count_as_ignored(tmp_path):
    def ignore_half(headers, pixels):
        for one in pixels:
            if one.mask is not None:
                one.mask[: len(one.mask) // 2] = 255

    seen = []
    headers, pixels = slices_of()
    ignore_half(headers, pixels)
    header = replace(HEADER, ignore_label=255)
    write_pack(
        tmp_path / "p.h5", header, headers, pixels, lambda labels: seen.append(labels) or ("background", "a", "b")
    )
    assert seen == [(0, 1, 2)]
    facts = describe(Pack.open(tmp_path / "p.h5"))
    assert facts["ignored"] == pytest.approx(0.5)
    assert sum(facts["classes"].values()) == pytest.approx(1)


def test_overlapping_structures_are_counted_bit_by_bit_and_shown(tmp_path):
    def both(headers, pixels):
        for one in pixels:
            if one.mask is not None:
                one.mask[:] = 0
                one.mask[:, 1:4] |= 1
                one.mask[:, 3:5] |= 2

    pack = write(tmp_path / "p.h5", replace(HEADER, mask_encoding="bits"), both)
    assert describe(pack)["classes"] == pytest.approx({"background": 2 / 6, "a": 3 / 6, "b": 2 / 6})
    shown = np.asarray(Image.open(contact_sheet(pack, tmp_path / "s.png", num_slices=4)).convert("RGB")).reshape(-1, 3)
    for colour in PALETTE[:2]:
        assert (shown == colour).all(axis=1).sum() > 200


def test_bit_that_means_nothing_is_refused(tmp_path):
    def set_bit_7(headers, pixels):
        pixels[0].mask[:] = 128

    with pytest.raises(PackError, match="volume0 sets bit 7"):
        write(tmp_path / "p.h5", replace(HEADER, mask_encoding="bits"), set_bit_7)


def test_channels_with_scales_of_their_own_are_scaled_one_by_one(tmp_path):
    image = np.stack([np.linspace(0, 1, 12).reshape(3, 4), np.linspace(100, 900, 12).reshape(3, 4)]).astype(np.float32)
    header = SliceHeader(Bucket(2, 3, 4, "float32"), "s", "v", "train", has_mask=False, annotated=False, labels=(0, 0))
    pixels = [SlicePixels(image, None, (0.0, 100.0), (1.0, 900.0))]
    write_pack(tmp_path / "p.h5", HEADER, [header], pixels, lambda labels: ())
    pack = Pack.open(tmp_path / "p.h5")
    expected = np.linspace(0, 1, 12).reshape(3, 4)
    np.testing.assert_allclose(scaled_slice(pack, 0), np.stack([expected, expected]), atol=1e-6)
    assert (pack.index.intensity_low[0], pack.index.intensity_high[0]) == (0, 900)


def test_equal_images_in_several_splits_are_reported(tmp_path, caplog):
    def repeat(headers, pixels):
        pixels[6].image[:] = pixels[0].image  # a test slice equal to a train slice
        pixels[2].image[:] = pixels[0].image  # and to another train slice
        for row in (1, 7):  # constant images say nothing
            pixels[row].image[:] = 0

    with caplog.at_level(logging.WARNING, "raysweep"):
        pack = write(tmp_path / "p.h5", change=repeat)
    assert "1 images occur in more than one split" in caplog.text
    assert "volume0 (train) = volume6 (test)" in caplog.text  # one of each split
    assert describe(pack)["duplicates"] == {
        "repeated_slices": 2,
        "images_in_several_splits": 1,
        "examples": [["volume0 (train)", "volume2 (train)", "volume6 (test)"]],
    }
