from __future__ import annotations

import numpy as np
import pytest

from raysweep.data.pack import Pack
from raysweep.datasets import acdc, synthetic_cardiac, synthetic_dead_leaves
from raysweep.datasets._cardiac_phantom import LEFT_VENTRICLE, MYOCARDIUM, RIGHT_VENTRICLE, synthesise_cine
from raysweep.datasets._packing import build_pack
from raysweep.errors import PackError

SMALL = synthetic_cardiac.Options(patients=4, slices=2, frames=3, size_px=(40, 48))


def cine_of(patient: int = 3, seed: int = 0):
    return synthesise_cine(seed, patient, acdc.GROUPS, 4, 4, (64, 80))


def area(mask, label: int) -> int:
    return int((mask == label).sum())


@pytest.mark.parametrize("patient", [1, 5, 8])
def test_heart_beats_and_tapers(patient):
    cine = cine_of(patient)
    diastole, systole = cine.masks[0], cine.masks[cine.systole]
    assert area(systole, LEFT_VENTRICLE) < 0.95 * area(diastole, LEFT_VENTRICLE)
    assert area(diastole[-1], LEFT_VENTRICLE) < 0.7 * area(diastole[0], LEFT_VENTRICLE)
    assert area(diastole[-1], RIGHT_VENTRICLE) < 0.5 * area(diastole[0], RIGHT_VENTRICLE)
    for label in (RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE):
        assert area(diastole[0], label) > 30


def test_intensity_alone_does_not_tell_the_classes():
    cine = cine_of()
    image, mask = cine.images[0], cine.masks[0]
    low, high = np.percentile(image[mask == MYOCARDIUM], (5, 95))
    background = image[mask == 0]
    assert ((background > low) & (background < high)).sum() > area(mask, MYOCARDIUM)


def test_patients_follow_from_seed_and_number():
    again, other, reseeded = cine_of(), cine_of(patient=4), cine_of(seed=1)
    np.testing.assert_array_equal(cine_of().images, again.images)
    assert again.images.dtype == np.int16
    assert again.images.min() >= 0
    for different in (other, reseeded):
        assert different.images.shape != again.images.shape or (different.images != again.images).any()


def test_every_split_sees_several_diagnoses():
    test_patients = [synthesise_cine(0, number, acdc.GROUPS, 1, 2, (16, 16)).group for number in (1, 11, 21, 31, 41)]
    assert sorted(test_patients) == sorted(acdc.GROUPS)


def test_fewer_patients_are_the_first_of_more(tmp_path):
    small = SMALL
    synthetic_cardiac.generate(tmp_path / "four", small)
    synthetic_cardiac.generate(tmp_path / "two", small.model_copy(update={"patients": 2}))
    for two in (tmp_path / "two").rglob("*.nii.gz"):
        four = tmp_path / "four" / two.relative_to(tmp_path / "two")
        assert two.read_bytes() == four.read_bytes()


def test_files_are_read_by_the_acdc_packer(tmp_path):
    synthetic_cardiac.generate(tmp_path / "files", SMALL)
    build_pack("acdc", tmp_path / "files", tmp_path / "acdc.h5", workers=1)
    pack = Pack.open(tmp_path / "acdc.h5")
    assert len(np.unique(pack.index.subject)) == 4
    assert np.isfinite(pack.index.labels).all()


def test_generated_files_stay_in_a_named_folder_and_are_reused(tmp_path):
    options = SMALL.model_dump()
    for name in ("a.h5", "b.h5"):
        build_pack("synthetic-cardiac", tmp_path / "files", tmp_path / name, options, workers=1)
    build_pack("synthetic-cardiac", None, tmp_path / "c.h5", options, workers=1)
    assert (tmp_path / "files" / "patient001" / "patient001_4d.nii.gz").is_file()
    assert len({(tmp_path / name).read_bytes() for name in ("a.h5", "b.h5", "c.h5")}) == 1


def test_leaves_are_unlabelled_and_differ(tmp_path):
    build_pack("synthetic-dead-leaves", None, tmp_path / "p.h5", {"images": 3, "size": 32})
    pack = Pack.open(tmp_path / "p.h5")
    assert pack.index.split.tolist() == ["train"] * 3
    assert not pack.index.annotated.any()
    assert (pack.class_names, pack.dataset) == ((), "synthetic-dead-leaves")
    assert pack.intensity.std > 20
    assert (pack.image(0) != pack.image(1)).mean() > 0.5


def test_leaf_sizes_follow_the_inverse_cube_law():
    rng = np.random.default_rng(0)
    radii = np.concatenate([synthetic_dead_leaves._radii(rng, 1000) for _ in range(200)])
    smallest = synthetic_dead_leaves._SMALLEST_RADIUS_PX
    for factor in (2, 4):  # P(r > x) is proportional to 1 / x^2
        assert (radii > factor * smallest).mean() == pytest.approx(1 / factor**2, rel=0.05)


def test_wrong_options_are_all_named_at_once(tmp_path):
    with pytest.raises(PackError, match=r"patents: unknown option. Did you mean 'patients'") as caught:
        build_pack("synthetic-cardiac", None, tmp_path / "p.h5", {"patents": 3, "seed": -1})
    assert "seed: Input should be greater than or equal to 0 (found -1)" in str(caught.value)


def test_data_set_that_needs_files_asks_for_them(tmp_path):
    with pytest.raises(PackError, match="'acdc' does not generate itself"):
        build_pack("acdc", None, tmp_path / "p.h5")


def test_progress_ends_with_all_slices(tmp_path):
    seen = []
    build_pack(
        "synthetic-dead-leaves",
        None,
        tmp_path / "p.h5",
        {"images": 3, "size": 32},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (3, 3)
