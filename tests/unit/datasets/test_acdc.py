from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from raysweep.data.pack import Pack
from raysweep.datasets import build_pack
from raysweep.errors import PackError

SHAPE = (10, 14, 3)  # x, y, z


def save(path: Path, array, spacing=(1.25, 1.5, 8.0), slope=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)


def write_patient(source: Path, number: int, *, group: str | None = "DCM", num_frames: int = 4, seed: int = 0):
    """A cine of ``num_frames`` frames with 1 and 3 labelled; returns cine and masks, (x, y, z, t)."""
    rng = np.random.default_rng([seed, number])
    folder = source / f"patient{number:03d}"
    cine = rng.integers(0, 1000, (*SHAPE, num_frames)).astype(np.int16)
    masks = rng.integers(0, 4, (*SHAPE, num_frames)).astype(np.uint8)
    save(folder / f"{folder.name}_4d.nii.gz", cine)
    for frame in (1, 3):
        save(folder / f"{folder.name}_frame{frame:02d}.nii.gz", cine[..., frame - 1])
        save(folder / f"{folder.name}_frame{frame:02d}_gt.nii.gz", masks[..., frame - 1])
    if group is not None:
        (folder / "Info.cfg").write_text(f"ED: 1\nES: 3\nGroup: {group}\nNbFrame: {num_frames}\n")
    return cine, masks


def pack_of(source: Path, out: Path, **options) -> Pack:
    build_pack("acdc", source, out, options, workers=1)
    return Pack.open(out)


def frame_path(source: Path, kind: str = "") -> Path:
    return source / "patient003" / f"patient003_frame01{kind}.nii.gz"


@pytest.fixture
def source(tmp_path):
    write_patient(tmp_path / "acdc", 3)
    return tmp_path / "acdc"


def test_slices_are_rows_along_y_and_columns_along_x_in_the_stored_type(tmp_path):
    cine, masks = write_patient(tmp_path / "acdc", 3)
    pack = pack_of(tmp_path / "acdc", tmp_path / "p.h5")
    for row in range(len(pack)):
        frame, z = pack.index.frame[row], pack.index.slice_number[row]
        image = pack.image(row)
        assert (image.dtype, image.shape) == (np.int16, (1, 14, 10))
        np.testing.assert_array_equal(image[0], cine[:, :, z, frame - 1].T)
        if pack.index.annotated[row]:
            np.testing.assert_array_equal(pack.mask(row), masks[:, :, z, frame - 1].T)
    np.testing.assert_array_equal(pack.index.spacing_mm[0], [1.5, 1.25])


def test_every_frame_is_packed_once_and_labelled_frames_with_masks(source, tmp_path):
    index = pack_of(source, tmp_path / "p.h5").index
    places = list(zip(index.frame.tolist(), index.slice_number.tolist(), strict=True))
    assert sorted(places) == [(frame, z) for frame in (1, 2, 3, 4) for z in range(3)]
    assert {frame for frame, labelled in zip(index.frame, index.annotated, strict=True) if labelled} == {1, 3}


def test_without_cine_only_labelled_slices_are_packed(source, tmp_path):
    pack = pack_of(source, tmp_path / "p.h5", cine=False)
    assert len(pack) == 6
    assert pack.index.annotated.all()


def test_percentiles_belong_to_the_volume_at_its_frame(tmp_path):
    cine, _ = write_patient(tmp_path / "acdc", 3)
    index = pack_of(tmp_path / "acdc", tmp_path / "p.h5").index
    for row in range(len(index.frame)):
        expected = np.percentile(cine[..., index.frame[row] - 1], (0.5, 99.5))
        np.testing.assert_allclose((index.intensity_low[row], index.intensity_high[row]), expected, rtol=1e-6)


def test_patients_are_split_by_number_modulo_ten_in_any_folder(tmp_path):
    for number in (1, 2, 3, 10):
        write_patient(tmp_path / "acdc" / "training", number)
    for number in (101, 112, 120):
        write_patient(tmp_path / "acdc" / "testing", number)
    index = pack_of(tmp_path / "acdc", tmp_path / "p.h5").index
    split_of = {str(s): str(p) for s, p in zip(index.subject, index.split, strict=True)}
    assert split_of == {
        "patient001": "test",
        "patient002": "val",
        "patient003": "train",
        "patient010": "train",
        "patient101": "test",
        "patient112": "val",
        "patient120": "train",
    }


def test_diagnosis_is_a_one_hot_label_and_unknown_without_info(tmp_path):
    write_patient(tmp_path / "acdc", 3, group="HCM")
    write_patient(tmp_path / "acdc", 4, group=None)
    pack = pack_of(tmp_path / "acdc", tmp_path / "p.h5")
    assert pack.label_names == ("NOR", "MINF", "DCM", "HCM", "RV")
    np.testing.assert_array_equal(pack.index.labels[pack.index.subject == "patient003"][0], [0, 0, 0, 1, 0])
    assert np.isnan(pack.index.labels[pack.index.subject == "patient004"]).all()


def test_unknown_diagnosis_is_named(source, tmp_path):
    (source / "patient003" / "Info.cfg").write_text("Group: DCMM\n")
    with pytest.raises(PackError, match=r"Info.cfg names the group 'DCMM'. Did you mean 'DCM'"):
        pack_of(source, tmp_path / "p.h5")


def test_number_of_workers_does_not_change_the_bytes(tmp_path):
    for number in (1, 3, 4):
        write_patient(tmp_path / "acdc", number)
    for workers in (1, 2):
        build_pack("acdc", tmp_path / "acdc", tmp_path / f"{workers}.h5", workers=workers)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_errors_of_reading_processes_keep_their_message(tmp_path):
    for number in (3, 4, 5):
        write_patient(tmp_path / "acdc", number)
    bad = np.full(SHAPE, 7, np.uint8)
    save(tmp_path / "acdc" / "patient004" / "patient004_frame03_gt.nii.gz", bad)
    with pytest.raises(PackError, match=r"patient004_frame03_gt.nii.gz has the labels"):
        build_pack("acdc", tmp_path / "acdc", tmp_path / "p.h5", workers=2)
    assert not list(tmp_path.glob("*p.h5*"))


def test_scaled_intensities_become_float32(source, tmp_path):
    save(frame_path(source), np.full(SHAPE, 10, np.int16), slope=(0.5, 1.0))
    pack = pack_of(source, tmp_path / "p.h5", cine=False)
    row = int(np.flatnonzero(pack.index.frame == 1)[0])
    assert pack.image(row).dtype == np.float32
    np.testing.assert_array_equal(pack.image(row), 6.0)
    assert pack.index.intensity_low[row] == pack.index.intensity_high[row] == 6.0


def test_nan_is_named_with_file_and_slice(source, tmp_path):
    image = np.zeros(SHAPE, np.float32)
    image[4, 7, 2] = np.nan
    save(frame_path(source), image)
    with pytest.raises(PackError, match=r"frame01.nii.gz has nan at row 7, column 4 of slice 2"):
        pack_of(source, tmp_path / "p.h5")


def test_wrong_labels_are_named_with_what_is_allowed(source, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 0, 0] = 4
    save(frame_path(source, "_gt"), mask)
    with pytest.raises(PackError, match=r"frame01_gt.nii.gz has the labels \[0, 4\]; allowed are 0 background"):
        pack_of(source, tmp_path / "p.h5")


def test_mask_of_another_shape_is_named(source, tmp_path):
    save(frame_path(source, "_gt"), np.zeros((10, 14, 2), np.uint8))
    with pytest.raises(PackError, match=r"frame01_gt.nii.gz has the shape \(10, 14, 2\), its image"):
        pack_of(source, tmp_path / "p.h5")


@pytest.mark.parametrize("keep", [0, 30, 600])
def test_truncated_file_is_named(source, tmp_path, keep):
    path = frame_path(source)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PackError, match=r"frame01.nii.gz cannot be read as NIfTI"):
        pack_of(source, tmp_path / "p.h5")


def test_file_whose_content_ends_early_is_named(source, tmp_path):
    path = frame_path(source)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-20]))
    with pytest.raises(PackError, match=r"frame01.nii.gz cannot be read as NIfTI"):
        pack_of(source, tmp_path / "p.h5")


def test_mask_without_image_is_named(source, tmp_path):
    frame_path(source).unlink()
    with pytest.raises(PackError, match=r"frame01_gt.nii.gz is the mask of frame 1, whose image is missing"):
        pack_of(source, tmp_path / "p.h5")


def test_folder_without_patients_says_what_is_expected(tmp_path):
    with pytest.raises(PackError, match="holds no folder patientNNN"):
        pack_of(tmp_path, tmp_path / "p.h5")
    with pytest.raises(PackError, match="is not a folder"):
        pack_of(tmp_path / "absent", tmp_path / "p.h5")


def test_patient_in_two_folders_is_named(tmp_path):
    write_patient(tmp_path / "acdc" / "training", 3)
    write_patient(tmp_path / "acdc" / "testing", 3)
    with pytest.raises(PackError, match="patient 3 occurs twice"):
        pack_of(tmp_path / "acdc", tmp_path / "p.h5")


def test_frame_beyond_the_cine_is_named(source, tmp_path):
    for kind in ("", "_gt"):
        frame_path(source, kind).rename(source / "patient003" / f"patient003_frame09{kind}.nii.gz")
    with pytest.raises(PackError, match=r"is frame 9 of .*4d.nii.gz, which has 4"):
        pack_of(source, tmp_path / "p.h5")
