"""A pack of version 1, written by the code of that time, is read as it was meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from packs import slices_of

from raysweep.data.inspect import describe
from raysweep.data.pack import Pack
from raysweep.data.slices import scaled_slice

OLD = Path(__file__).parents[2] / "golden" / "pack_version_1.h5"


def test_pixels_index_and_digest_are_as_they_were():
    pack = Pack.open(OLD)
    pack.verify()
    headers, pixels = slices_of()
    for row, (header, one) in enumerate(zip(headers, pixels, strict=True)):
        np.testing.assert_array_equal(pack.image(row)[0], one.image)
        assert (pack.index.subject[row], pack.index.frame[row]) == (header.subject, header.frame)


def test_what_the_version_lacks_has_the_meaning_of_its_time():
    pack = Pack.open(OLD)
    assert (pack.mask_encoding, pack.ignore_label, pack.split_rule) == ("index", None, "")
    assert pack.label_scopes == ("subject", "subject")
    assert pack.index.content.shape == (8, 0)
    np.testing.assert_array_equal(pack.index.channel_low[:, 0], pack.index.intensity_low)
    assert describe(pack)["duplicates"] is None
    assert describe(pack)["labels"]["ill"] == {
        "of": "subjects",
        "positive": 2,
        "negative": 2,
        "uncertain": 0,
        "unknown": 0,
    }


def test_slices_are_scaled_by_their_volume():
    pack = Pack.open(OLD)
    image, low, high = pack.image(0).astype(np.float64), pack.index.intensity_low[0], pack.index.intensity_high[0]
    np.testing.assert_allclose(scaled_slice(pack, 0), (image - low) / (high - low), rtol=1e-5, atol=1e-6)
