"""Annotation subsets of generated packs: nested, determined by their arguments, apart from held-out subjects."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.data.pack import Pack
from raysweep.data.pack_format import SPLITS, Bucket
from raysweep.data.pack_slices import PackHeader, SliceHeader, SlicePixels
from raysweep.data.pack_writer import write_pack
from raysweep.data.strata import proportional_order, strata_of
from raysweep.data.subsets import annotation_subset, pack_facts
from raysweep.errors import PackError

LABELS = ("common", "rare")


def pack_of(folder: Path, subjects: list[tuple[str, int, int, float]]) -> Pack:
    """A pack of subjects, each with (split, volumes, slices a volume, label); every fifth slice is not annotated."""
    headers = []
    for number, (split, volumes, slices, rare) in enumerate(subjects):
        for volume in range(volumes):
            for place in range(slices):
                headers.append(
                    SliceHeader(
                        Bucket(1, 2, 2, "uint8"),
                        f"s{number}",
                        f"s{number}v{volume}",
                        split,
                        has_mask=False,
                        annotated=len(headers) % 5 != 4,
                        slice_number=place,
                        labels=(1.0, rare),
                    )
                )
    pixels = (SlicePixels(np.full((2, 2), n % 200, np.uint8), None, 0.0, 1.0) for n in range(len(headers)))
    path = folder / "p.h5"
    write_pack(path, PackHeader("any", 1, {}, LABELS), headers, pixels, lambda labels: ())
    return Pack.open(path)


subjects = st.lists(
    st.tuples(st.sampled_from(SPLITS), st.integers(1, 2), st.integers(1, 4), st.sampled_from([0.0, 1.0, float("nan")])),
    min_size=1,
    max_size=12,
).filter(lambda found: found[0][0] == "train")
units = st.sampled_from(["slice", "volume", "subject"])


@settings(max_examples=25, deadline=None)
@given(subjects, units, st.integers(0, 3), st.booleans())
def test_subsets_are_nested_whole_units_of_the_train_split(found, unit, seed, stratify):
    with tempfile.TemporaryDirectory() as folder:
        pack = pack_of(Path(folder), found)
        total = pack_facts(pack).num_annotated[unit]
        counts = list(range(1, total + 1))
        subsets = {n: annotation_subset(pack, n, unit=unit, seed=seed, stratify=stratify) for n in reversed(counts)}
    index = pack.index
    held_out = set(index.subject[index.split != "train"].tolist())
    names = index.subject if unit == "subject" else index.volume
    for count in counts:
        rows = subsets[count]
        assert (np.diff(rows) > 0).all()
        assert not held_out & set(index.subject[rows].tolist())
        assert index.annotated[rows].all()
        if count > 1:
            assert set(subsets[count - 1].tolist()) < set(rows.tolist())
        if unit == "slice":
            assert len(rows) == count
        else:
            assert len(set(names[rows].tolist())) == count
            train = np.flatnonzero((index.split == "train") & index.annotated)
            chosen = set(names[rows].tolist())
            assert rows.tolist() == [row for row in train.tolist() if names[row] in chosen]


@settings(max_examples=25, deadline=None)
@given(subjects, units, st.integers(0, 3), st.sampled_from(["nested", "anew"]), st.permutations(range(1, 6)))
def test_a_draw_is_not_influenced_by_others_of_the_grid(found, unit, seed, drawing, order):
    with tempfile.TemporaryDirectory() as folder:
        pack = pack_of(Path(folder), found)
        total = pack_facts(pack).num_annotated[unit]
        counts = [count for count in order if count <= total]
        first = {n: annotation_subset(pack, n, unit=unit, seed=seed, drawing=drawing).tolist() for n in counts}
        alone = {n: annotation_subset(pack, n, unit=unit, seed=seed, drawing=drawing).tolist() for n in sorted(counts)}
    assert first == alone


@settings(max_examples=25, deadline=None)
@given(subjects, units, st.integers(0, 3), st.sampled_from(["nested", "anew", "kalapos2022", "taher2021"]))
def test_a_draw_is_the_same_from_a_pack_opened_again_and_never_straddles_splits(found, unit, seed, drawing):
    unit = unit if drawing in ("nested", "anew") else "slice"
    with tempfile.TemporaryDirectory() as folder:
        pack = pack_of(Path(folder), found)
        counts = range(1, pack_facts(pack).num_annotated[unit] + 1)
        again = Pack.open(Path(folder) / "p.h5")
        draws = [
            [annotation_subset(one, n, unit=unit, seed=seed, drawing=drawing).tolist() for n in counts]
            for one in (pack, again)
        ]
    assert draws[0] == draws[1]
    held_out = set(pack.index.subject[pack.index.split != "train"].tolist())
    for rows in draws[0]:
        assert not held_out & set(pack.index.subject[rows].tolist())
        assert len(set(rows)) == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 5))
def test_every_prefix_has_about_each_stratums_share(strata, seed):
    rng = np.random.default_rng(seed)
    codes = np.array(strata)
    offsets = {code: float(rng.uniform()) for code in set(strata)}
    order = proportional_order(codes, rng.permutation(len(codes)), offsets)
    assert sorted(order.tolist()) == list(range(len(codes)))
    for length in range(1, len(codes) + 1):
        counted = Counter(codes[order[:length]].tolist())
        for code, total in Counter(strata).items():
            # Strata lie on one line, each evenly; two neighbours round by at most one each.
            assert abs(counted[code] - total * length / len(codes)) <= len(offsets)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    found = [("train", 1, 4, float(number % 10 == 0)) for number in range(40)] + [("test", 1, 2, 1.0)]
    return pack_of(tmp_path_factory.mktemp("pack"), found)


@pytest.mark.parametrize("seed", range(5))
def test_rare_labels_are_as_frequent_in_a_subset_as_in_the_whole(labelled, seed):
    for count, expected in ((10, 1), (20, 2), (40, 4)):
        rows = annotation_subset(labelled, count, unit="subject", seed=seed)
        rare = {labelled.index.subject[row] for row in rows if labelled.index.labels[row, 1] == 1}
        assert len(rare) == expected
    drawn = {seed: annotation_subset(labelled, 10, unit="subject", seed=seed, stratify=False) for seed in range(20)}
    counts = {
        len({labelled.index.subject[r] for r in rows if labelled.index.labels[r, 1] == 1}) for rows in drawn.values()
    }
    assert len(counts) > 1


def test_smallest_subsets_have_a_rare_label_as_often_as_any_unit(labelled):
    """A rare stratum's first unit must not always be among the very first."""
    num_rare = 0
    for seed in range(100):
        rows = annotation_subset(labelled, 2, unit="subject", seed=seed)
        num_rare += len({labelled.index.subject[row] for row in rows if labelled.index.labels[row, 1] == 1})
    assert 5 < num_rare < 40  # a tenth of 200 units


def test_seeds_draw_different_subsets(labelled):
    drawn = {tuple(annotation_subset(labelled, 8, seed=seed).tolist()) for seed in range(10)}
    assert len(drawn) == 10


def test_published_drawing_is_numpys_choice_after_its_seed(labelled):
    rows = labelled.select("train", annotated=True)
    for seed, count in ((0, 3), (42, 15), (1111, len(rows))):
        np.random.seed(seed)
        expected = rows[np.random.choice(len(rows), count, replace=False)]
        found = annotation_subset(labelled, count, drawing="kalapos2022", seed=seed)
        assert found.tolist() == sorted(expected.tolist())
    small, large = (set(annotation_subset(labelled, n, drawing="kalapos2022", seed=0).tolist()) for n in (10, 60))
    assert small < large  # numpy takes the first of one permutation, so that equal seeds nest after all
    assert small != set(annotation_subset(labelled, 10, drawing="kalapos2022", seed=1).tolist())
    order = list(range(len(rows)))
    random.Random(99).shuffle(order)
    for seed, count in ((0, 10), (5, 60)):
        found = annotation_subset(labelled, count, drawing="taher2021", seed=seed)
        assert found.tolist() == sorted(rows[order[:count]].tolist()), "the same for every seed"
    with pytest.raises(PackError, match="draws slices; subjects are drawn as nested or anew"):
        annotation_subset(labelled, 3, unit="subject", drawing="kalapos2022")


def test_rarest_label_is_the_stratum():
    nan = np.nan
    labels = np.array(
        [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [nan, nan, nan], [nan, 1, nan], [-1, -1, -1]]
    )
    assert strata_of(labels).tolist() == [0, 0, 1, 2, -1, -2, 1, -1]
