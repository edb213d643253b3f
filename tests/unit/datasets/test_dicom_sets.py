from __future__ import annotations

import csv

import numpy as np
import pydicom
import pytest
from packing import labels_of, pack_files, pack_lookalike, split_of_subjects
from pydicom.config import disable_value_validation

from raysweep.errors import PackError
from tests.lookalikes import write_lookalike
from tests.lookalikes._dicom_files import dataset_of, save_dicom, uid


def rle_to_mask(text: str, height: int, width: int) -> np.ndarray:
    """The challenge's own way to decode, written down pixel by pixel."""
    flat, place = [0] * (height * width), 0
    numbers = list(map(int, text.split()))
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        place += gap
        for _ in range(length):
            flat[place] = 1
            place += 1
    return np.array(flat).reshape(width, height).T


class TestSiimAcr:
    def test_masks_are_the_union_of_all_rows_of_an_image(self, tmp_path):
        pack = pack_lookalike("siim-acr", tmp_path)
        with (tmp_path / "files" / "train-rle.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        for row, name in enumerate(pack.index.volume.tolist()):
            texts = [r[" EncodedPixels"] for r in rows if r["ImageId"] == name and r[" EncodedPixels"] != " -1"]
            expected = sum((rle_to_mask(text, 32, 32) for text in texts), np.zeros((32, 32), int)) > 0
            np.testing.assert_array_equal(pack.mask(row), expected)
            assert labels_of(pack, row) == {"pneumothorax": float(bool(texts))}
        assert {len([r for r in rows if r["ImageId"] == name]) for name in pack.index.volume.tolist()} == {1, 2}

    def test_pixels_are_those_of_the_jpeg_and_spacing_is_kept(self, tmp_path):
        pack = pack_lookalike("siim-acr", tmp_path)
        path = next((tmp_path / "files").rglob(f"{pack.index.volume[0]}.dcm"))
        np.testing.assert_array_equal(pack.image(0)[0], pydicom.dcmread(path).pixel_array)
        np.testing.assert_allclose(pack.index.spacing_mm, 0.168, rtol=1e-6)

    def test_images_without_a_row_are_left_out_unless_asked_for(self, tmp_path):
        assert len(pack_lookalike("siim-acr", tmp_path, unlabelled=True)) == 7
        pack = pack_files("siim-acr", tmp_path, {"unlabelled": True})
        extra = np.flatnonzero(~pack.index.annotated)
        assert len(pack) == 8
        assert pack.index.split[extra].tolist() == ["train"]
        assert np.isnan(pack.index.labels[extra]).all()

    def test_run_that_leaves_the_image_is_named(self, tmp_path):
        write_lookalike("siim-acr", tmp_path / "files")
        path = tmp_path / "files" / "train-rle.csv"
        path.write_text(path.read_text().replace(" -1", " 1000 100", 1))
        with pytest.raises(PackError, match=r"has a run from pixel 1000 to 1100 of 1024"):
            pack_files("siim-acr", tmp_path)


class TestRsnaPe:
    def test_slices_are_in_the_order_of_their_positions(self, tmp_path):
        pack = pack_lookalike("rsna-pe", tmp_path, options={"channels": "hounsfield"})
        rows = np.flatnonzero(pack.index.volume == pack.index.volume[0])
        files = sorted((tmp_path / "files" / "train").rglob(f"{pack.index.volume[0]}/*.dcm"))
        with disable_value_validation():
            datasets = sorted(map(pydicom.dcmread, files), key=lambda one: float(one.ImagePositionPatient[2]))
            stored = [dataset.pixel_array.astype(int) for dataset in datasets]
        assert pack.index.slice_number[rows].tolist() == [0, 1, 2]
        for row, values in zip(rows.tolist(), stored, strict=True):
            np.testing.assert_array_equal(pack.image(row)[0], values - 1024)
        assert pack.image(0).dtype == np.int32  # 16 stored bits less 1024 do not fit into 16

    def test_windows_are_three_channels_of_eight_bits(self, tmp_path):
        exact = pack_lookalike("rsna-pe", tmp_path, options={"channels": "hounsfield"})
        units = [exact.image(row)[0].astype(np.float64) for row in range(len(exact))]
        pack = pack_files("rsna-pe", tmp_path)
        assert (pack.num_channels, pack.image(0).dtype) == (3, np.uint8)
        for row, unit in enumerate(units):
            for channel, (centre, width) in enumerate(((-600, 1500), (100, 700), (40, 400))):
                low = centre - width / 2
                expected = np.rint(255 * np.clip((unit - low) / width, 0, 1))
                np.testing.assert_array_equal(pack.image(row)[channel], expected)
        assert (pack.index.channel_low == 0).all()
        assert (pack.index.channel_high == 255).all()

    def test_labels_belong_to_slices_or_to_the_examination(self, tmp_path):
        pack = pack_lookalike("rsna-pe", tmp_path)
        scope = dict(zip(pack.label_names, pack.label_scopes, strict=True))
        assert (scope["pe_present_on_image"], scope["leftsided_pe"]) == ("slice", "subject")
        with (tmp_path / "files" / "train.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        positive = sum(int(row["pe_present_on_image"]) for row in rows)
        assert pack.index.labels[:, pack.label_names.index("pe_present_on_image")].sum() == positive > 0

    def test_examination_of_two_minds_is_refused(self, tmp_path):
        write_lookalike("rsna-pe", tmp_path / "files")
        path = tmp_path / "files" / "train.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:-1], lines[-1][:-1] + "1"]) + "\n")
        with pytest.raises(PackError, match="different examination labels"):
            pack_files("rsna-pe", tmp_path)

    def test_every_third_slice_can_be_packed(self, tmp_path):
        assert len(pack_lookalike("rsna-pe", tmp_path, slices=7, options={"every": 3})) == 6 * 3


class TestDicomFolder:
    def test_hounsfield_units_order_spacing_and_labels(self, tmp_path):
        pack = pack_lookalike("dicom", tmp_path)
        assert np.isnan(pack.index.labels[pack.index.subject == "P006"]).all()
        for row in range(len(pack)):
            patient, place = str(pack.index.subject[row]), int(pack.index.slice_number[row])
            path = tmp_path / "files" / f"PAT{patient[1:]}" / f"IM{3 - place:05d}"
            np.testing.assert_array_equal(pack.image(row)[0], pydicom.dcmread(path).pixel_array.astype(int) - 1024)
        np.testing.assert_array_equal(pack.index.spacing_mm[0], [0.75, 0.5])
        assert pack.image(0).dtype == np.int16
        assert set(split_of_subjects(pack).values()) == {"train", "val", "test"}

    def test_percentiles_are_those_of_the_whole_series(self, tmp_path):
        pack = pack_lookalike("dicom", tmp_path)
        rows = np.flatnonzero(pack.index.subject == "P002")
        series = np.stack([pack.image(row) for row in rows.tolist()])
        expected = np.percentile(series, (0.5, 99.5))
        np.testing.assert_allclose((pack.index.intensity_low[rows[0]], pack.index.intensity_high[rows[0]]), expected)

    def test_frames_of_a_cine_are_time_points(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 6), np.uint8)
        save_dicom(tmp_path / "files" / "cine", dataset_of(pixels))
        pack = pack_files("dicom", tmp_path)
        assert pack.index.frame.tolist() == [1, 2, 3, 4]
        assert pack.index.slice_number.tolist() == [0] * 4
        for row in range(4):
            np.testing.assert_array_equal(pack.image(row)[0], pixels[row])

    def test_same_image_in_two_files_is_named(self, tmp_path):
        dataset = dataset_of(np.zeros((4, 4), np.uint8))
        for name in ("a.dcm", "b.dcm"):
            save_dicom(tmp_path / "files" / name, dataset)
        with pytest.raises(PackError, match=r"b.dcm and .*a.dcm hold the same image"):
            pack_files("dicom", tmp_path)

    def test_table_of_other_patients_is_refused(self, tmp_path):
        write_lookalike("dicom", tmp_path / "files")
        (tmp_path / "files" / "labels.csv").write_text("PatientID,nodule\nX1,1\n")
        with pytest.raises(PackError, match=r"no PatientID of the files, such as 'P001'; it has 'X1'"):
            pack_files("dicom", tmp_path, {"table": "labels.csv"})

    def test_colour_frames_are_packed_and_not_windowed(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (8, 6, 3), np.uint8)
        save_dicom(tmp_path / "files" / "photo", dataset_of(pixels, SOPInstanceUID=uid(9)))
        np.testing.assert_array_equal(pack_files("dicom", tmp_path).image(0), np.moveaxis(pixels, -1, 0))
        with pytest.raises(PackError, match="windows are for grey ones"):
            pack_files("dicom", tmp_path, {"windows": [[40, 400]]})
