"""Every registered data set, by name: what any packer must do."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from raysweep import registry
from raysweep.data.inspect import describe
from raysweep.data.pack import Pack
from raysweep.datasets import _packing, build_pack
from raysweep.errors import PackError
from raysweep.settings import Settings
from tests import lookalikes
from tests.lookalikes import write_lookalike

NAMES = registry.names("datasets")


@pytest.fixture(scope="module", params=NAMES)
def packed(request, tmp_path_factory):
    """(name, module, folder of its look-alike's files, options, open pack)"""
    module = registry.load("datasets", request.param)
    base = tmp_path_factory.mktemp(request.param)
    options = write_lookalike(request.param, base / "files")
    build_pack(request.param, base / "files", base / "out.h5", options, workers=1)
    return request.param, module, base, options, Pack.open(base / "out.h5")


def test_every_data_set_has_a_look_alike():
    assert lookalikes.names() == NAMES


def test_it_describes_itself(packed):
    name, module, _, options, pack = packed
    assert registry.describe("datasets")[name]
    assert isinstance(module.RECIPE, int)
    assert issubclass(module.Options, Settings)
    assert all(dataclasses.astuple(module.ABOUT))
    assert (pack.dataset, pack.recipe) == (name, module.RECIPE)
    assert pack.options == module.Options.model_validate(options).model_dump(mode="json")
    assert pack.split_rule


def test_default_options_survive_a_round_trip(packed):
    defaults = packed[1].Options()
    assert packed[1].Options.model_validate(defaults.model_dump(mode="json")) == defaults


def test_packing_again_gives_the_same_bytes(packed):
    name, _, base, options, pack = packed
    build_pack(name, base / "files", base / "again.h5", options, workers=1)
    assert (base / "again.h5").read_bytes() == pack.path.read_bytes()


def test_readings_carried_out_in_another_order_after_pickling_give_the_same_bytes(packed, monkeypatch):
    """What processes do, without the time they take to start."""
    name, _, base, options, pack = packed

    def pickled(function, arguments, workers):
        done = {}
        for number in reversed(range(len(arguments))):
            function_, one = pickle.loads(pickle.dumps((function, arguments[number])))
            done[number] = pickle.loads(pickle.dumps(function_(*one)))
        return [done[number] for number in range(len(arguments))]

    monkeypatch.setattr(_packing, "ordered_map", pickled)
    monkeypatch.setattr(_packing, "_TASK_BYTES", 1)
    build_pack(name, base / "files", base / "other.h5", options, workers=2)
    assert (base / "other.h5").read_bytes() == pack.path.read_bytes()


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
            mask = pack.mask(row)
            assert mask.shape == pack.shape(row)
            kept = mask[mask != pack.ignore_label] if pack.ignore_label is not None else mask
            limit = len(pack.class_names) if pack.mask_encoding == "index" else 1 << len(pack.class_names) - 1
            assert kept.max(initial=0) < limit


def test_labels_are_yes_no_uncertain_or_unknown(packed):
    pack = packed[-1]
    labels = pack.index.labels
    assert labels.shape == (len(pack), len(pack.label_names)) == (len(pack), len(pack.label_scopes))
    assert np.isin(labels[~np.isnan(labels)], (1, 0, -1)).all()
    if pack.label_kind == "multi-class":
        known = labels[~np.isnan(labels).all(axis=1)]
        assert (known.sum(axis=1) == 1).all()


def test_labels_are_the_same_throughout_their_scope(packed):
    index = packed[-1].index
    for column, scope in enumerate(packed[-1].label_scopes):
        if scope != "slice":
            units, values = getattr(index, scope), index.labels[:, column]
            for unit in np.unique(units):
                assert len(np.unique(values[units == unit])) == 1


def test_annotated_slices_have_a_mask_or_a_label(packed):
    pack = packed[-1]
    known = ~np.isnan(pack.index.labels).all(axis=1) if pack.label_names else np.zeros(len(pack), bool)
    for row in pack.select(annotated=True):
        assert pack.index.mask_position[row] >= 0 or known[row]


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
    name, _, _, options, _ = packed
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "readme.txt").write_text("nothing to pack")
    with pytest.raises(PackError):
        build_pack(name, tmp_path / "files", tmp_path / "out.h5", options, workers=1)
    assert not (tmp_path / "out.h5").exists()
