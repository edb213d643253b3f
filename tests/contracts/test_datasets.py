"""Every registered data set, by name: what any packer must do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raysweep import registry
from raysweep.data.inspect import describe
from raysweep.data.pack import Pack
from raysweep.errors import PackError
from raysweep.settings import Settings

NAMES = registry.names("datasets")


@pytest.fixture(scope="module", params=NAMES)
def packed(request, tmp_path_factory):
    """(name, module, folder of its example files, options, open pack)"""
    module = registry.load("datasets", request.param)
    base = tmp_path_factory.mktemp(request.param)
    options = module.write_example(base / "files")
    module.pack(base / "files", base / "out.h5", options, workers=1)
    return request.param, module, base, options, Pack.open(base / "out.h5")


def test_it_describes_itself(packed):
    name, module, _, options, pack = packed
    assert registry.describe("datasets")[name]
    assert isinstance(module.RECIPE, int)
    assert issubclass(module.Options, Settings)
    assert (pack.dataset, pack.recipe) == (name, module.RECIPE)
    assert pack.options == options.model_dump(mode="json")


def test_default_options_are_valid(packed):
    packed[1].Options()


def test_packing_again_gives_the_same_bytes(packed):
    _, module, base, options, pack = packed
    module.pack(base / "files", base / "again.h5", options, workers=1)
    assert (base / "again.h5").read_bytes() == pack.path.read_bytes()


def test_two_processes_give_the_same_bytes(packed):
    _, module, base, options, pack = packed
    module.pack(base / "files", base / "two.h5", options, workers=2)
    assert (base / "two.h5").read_bytes() == pack.path.read_bytes()


def test_content_agrees_with_its_digest(packed):
    packed[-1].verify()


def test_subjects_never_straddle_splits(packed):
    index = packed[-1].index
    places = set(zip(index.subject.tolist(), index.split.tolist(), strict=True))
    assert len(places) == len({subject for subject, _ in places})


def test_there_is_something_to_train_on(packed):
    assert len(packed[-1].select("train")) > 0


def test_masks_hold_class_indices(packed):
    pack = packed[-1]
    for row in pack.select(annotated=True):
        if pack.index.mask_position[row] >= 0:
            assert pack.mask(row).shape == pack.shape(row)
            assert pack.mask(row).max() < len(pack.class_names)


def test_slices_are_told_apart_by_volume_frame_and_number(packed):
    index = packed[-1].index
    keys = set(zip(index.volume.tolist(), index.frame.tolist(), index.slice_number.tolist(), strict=True))
    assert len(keys) == len(packed[-1])


def test_intensity_ranges_are_ordered_unless_the_image_is_constant(packed):
    pack = packed[-1]
    for row in range(len(pack)):
        low, high = pack.index.intensity_low[row], pack.index.intensity_high[row]
        assert np.isfinite([low, high]).all()
        assert high > low or pack.image(row).min() == pack.image(row).max()


def test_facts_are_json(packed):
    facts = json.loads(json.dumps(describe(packed[-1]), allow_nan=False))
    assert facts["slices"] == sum(split["slices"] for split in facts["splits"].values())


def test_foreign_folder_is_refused(packed, tmp_path):
    _, module, _, options, _ = packed
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "readme.txt").write_text("nothing to pack")
    with pytest.raises(PackError):
        module.pack(tmp_path / "files", tmp_path / "out.h5", options, workers=1)
    assert not (tmp_path / "out.h5").exists()
