from __future__ import annotations

import json

import numpy as np
import pytest
from packs import write_small_pack
from PIL import Image

from raysweep.data.contact_sheet import PALETTE, contact_sheet
from raysweep.data.inspect import describe
from raysweep.data.pack import Pack
from raysweep.errors import PackError


@pytest.fixture
def pack(tmp_path):
    write_small_pack(tmp_path / "small.h5")
    return Pack.open(tmp_path / "small.h5")


def test_facts_are_json_and_count_what_is_there(pack):
    facts = json.loads(json.dumps(describe(pack), allow_nan=False))
    assert (facts["slices"], facts["annotated_slices"], facts["subjects"]) == (8, 4, 4)
    assert facts["buckets"] == {"8x6_int16": 4, "9x6_float32": 4}
    assert facts["splits"]["train"] == {"slices": 4, "annotated_slices": 2, "subjects": 2, "volumes": 4}
    assert sum(facts["classes"].values()) == pytest.approx(1)
    assert facts["labels"]["ill"] == {"of": "slices", "positive": 4, "negative": 4, "uncertain": 0, "unknown": 0}
    assert facts["labels"]["old"]["unknown"] == 8
    assert facts["duplicates"] == {"repeated_slices": 0, "images_in_several_splits": 0, "examples": []}
    assert facts["spacing_mm"] == {"rows": [1.5, 1.5], "columns": [1.25, 1.25]}
    assert facts["digest"] == pack.digest


def test_contact_sheet_shows_class_colours_and_is_reproducible(pack, tmp_path):
    first = contact_sheet(pack, tmp_path / "a.png", num_slices=4)
    second = contact_sheet(pack, tmp_path / "b.png", num_slices=4)
    assert first.read_bytes() == second.read_bytes()
    pixels = np.asarray(Image.open(first).convert("RGB")).reshape(-1, 3)
    for colour in PALETTE[:2]:
        assert (pixels == colour).all(axis=1).sum() > 200


def test_contact_sheet_of_no_slices_is_refused(pack, tmp_path):
    with pytest.raises(PackError, match="num_slices is 0"):
        contact_sheet(pack, tmp_path / "a.png", num_slices=0)
