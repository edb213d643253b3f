from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from packing import labels_of, pack_files, pack_lookalike, split_of_subjects
from PIL import Image

from raysweep.errors import PackError
from tests.lookalikes import write_lookalike


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


class TestChestXray14:
    def test_findings_and_pixels_are_those_of_the_table_and_the_files(self, tmp_path):
        pack = pack_lookalike("chestxray14", tmp_path)
        rows = {row["Image Index"]: row for row in table(tmp_path / "files" / "Data_Entry_2017.csv")}
        for row, name in enumerate(pack.index.volume.tolist()):
            positive = {label for label, value in labels_of(pack, row).items() if value == 1}
            assert positive == set(rows[name]["Finding Labels"].split("|")) - {"No Finding"}
            (path,) = (tmp_path / "files").rglob(name)
            np.testing.assert_array_equal(pack.image(row)[0], np.asarray(Image.open(path).convert("L")))
        assert pack.label_kind == "multi-label"

    def test_official_test_list_is_the_test_split_and_validation_comes_from_the_rest(self, tmp_path):
        pack = pack_lookalike("chestxray14", tmp_path, subjects=20)
        listed = set((tmp_path / "files" / "test_list.txt").read_text().split())
        assert {
            name for name, split in zip(pack.index.volume, pack.index.split, strict=True) if split == "test"
        } == listed
        splits = list(split_of_subjects(pack).values())
        assert splits.count("val") == round(0.15 * 16)

    def test_spacing_is_that_of_the_released_image(self, tmp_path):
        pack = pack_lookalike("chestxray14", tmp_path)
        np.testing.assert_allclose(pack.index.spacing_mm[0], [2749 * 0.143 / 1024, 2682 * 0.143 / 1024], rtol=1e-6)

    def test_benchmark_lists_name_all_splits(self, tmp_path):
        write_lookalike("chestxray14", tmp_path / "files")
        names = [row["Image Index"] for row in table(tmp_path / "files" / "Data_Entry_2017.csv")]
        patients = sorted({name[:8] for name in names})
        for split, chosen in (("train", patients[:6]), ("val", patients[6:8]), ("test", patients[8:])):
            lines = [f"{name} 0 1 0\n" for name in names if name[:8] in chosen]
            (tmp_path / "files" / f"Xray14_{split}_official.txt").write_text("".join(lines))
        pack = pack_files("chestxray14", tmp_path, {"lists": "benchmark"})
        expected = {
            str(int(p)): ("train" if p in patients[:6] else "val" if p in patients[6:8] else "test") for p in patients
        }
        assert split_of_subjects(pack) == expected

    def test_patient_in_both_official_lists_is_refused(self, tmp_path):
        write_lookalike("chestxray14", tmp_path / "files")
        names = [row["Image Index"] for row in table(tmp_path / "files" / "Data_Entry_2017.csv")]
        twice = next(name for name in names if name.endswith("_001.png") and name[:8] != "00000005")
        lists = {name: tmp_path / "files" / name for name in ("train_val_list.txt", "test_list.txt")}
        lists["train_val_list.txt"].write_text(lists["train_val_list.txt"].read_text().replace(twice + "\n", ""))
        lists["test_list.txt"].write_text(lists["test_list.txt"].read_text() + twice + "\n")
        with pytest.raises(PackError, match=r"subject '1' is in the splits"):
            pack_files("chestxray14", tmp_path)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("No Finding", "Herniaa", r"finding 'Herniaa'. Did you mean 'Hernia'"),
            ("Patient ID", "Patient", r"no column 'Patient ID'"),
        ],
    )
    def test_defects_of_the_table_are_named(self, tmp_path, old, new, message):
        write_lookalike("chestxray14", tmp_path / "files")
        path = tmp_path / "files" / "Data_Entry_2017.csv"
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(PackError, match=message):
            pack_files("chestxray14", tmp_path)

    def test_colour_image_is_refused(self, tmp_path):
        write_lookalike("chestxray14", tmp_path / "files")
        path = next((tmp_path / "files").rglob("00000002_000.png"))
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
        with pytest.raises(PackError, match=r"00000002_000.png has colours where a grey image is expected"):
            pack_files("chestxray14", tmp_path)

    def test_missing_images_are_counted(self, tmp_path):
        write_lookalike("chestxray14", tmp_path / "files")
        for path in (tmp_path / "files").rglob("0000000[34]_*.png"):
            path.unlink()
        with pytest.raises(PackError, match=r"lacks 3 of the listed images, the first 0000000[34]"):
            pack_files("chestxray14", tmp_path)


class TestCheXpert:
    def test_uncertain_and_missing_labels_are_kept_apart(self, tmp_path):
        pack = pack_lookalike("chexpert", tmp_path)
        cells = {"1.0": 1.0, "0.0": 0.0, "-1.0": -1.0, "": math.nan}
        rows = {r["Path"].split("/", 1)[1]: r for r in table(next((tmp_path / "files").rglob("train.csv")))}
        for row in np.flatnonzero(pack.index.split != "test").tolist():
            expected = [cells[rows[pack.index.volume[row]][name]] for name in pack.label_names]
            np.testing.assert_array_equal(pack.index.labels[row], np.float32(expected))
        assert (pack.index.labels == -1).any()
        assert np.isnan(pack.index.labels).any()

    def test_valid_is_the_test_split_unless_there_is_a_test_set(self, tmp_path):
        for has_test, expected in ((False, "test"), (True, "val")):
            pack = pack_lookalike("chexpert", tmp_path / str(has_test), test_set=has_test)
            from_valid = [name.startswith("valid/") for name in pack.index.volume.tolist()]
            assert set(pack.index.split[from_valid].tolist()) == {expected}
            assert set(pack.index.split.tolist()) == {"train", "val", "test"}

    def test_views_can_be_chosen(self, tmp_path):
        pack = pack_lookalike("chexpert", tmp_path, options={"views": "lateral"})
        assert all("lateral" in name for name in pack.index.volume.tolist())

    def test_label_that_is_no_label_is_named(self, tmp_path):
        write_lookalike("chexpert", tmp_path / "files")
        path = next((tmp_path / "files").rglob("train.csv"))
        path.write_text(path.read_text().replace("-1.0", "-2", 1))
        with pytest.raises(PackError, match=r"train.csv has '-2' in column .*allowed are 1, 0, -1 for uncertain"):
            pack_files("chexpert", tmp_path)


class TestShenzhen:
    def test_label_is_the_digit_of_the_name_and_splits_are_stratified(self, tmp_path):
        pack = pack_lookalike("shenzhen", tmp_path, subjects=40)
        assert pack.index.labels[:, 0].tolist() == [float(name[-1]) for name in pack.index.volume.tolist()]
        for split, share in (("val", 4), ("test", 8)):
            rows = pack.select(split)
            assert len(rows) == share
            assert pack.index.labels[rows].mean() == 0.5

    def test_benchmark_lists_are_followed(self, tmp_path):
        pack = pack_lookalike("shenzhen", tmp_path, lists=True)
        listed = (tmp_path / "files" / "ShenzenCXR_valid_data.txt").read_text().split()
        held = {f"{name}.png" for name, split in split_of_subjects(pack).items() if split == "val"}
        assert held == {line.split(",")[0] for line in listed}


class TestMontgomery:
    @pytest.mark.parametrize("lungs", ["merged", "separate"])
    def test_masks_of_both_lungs_become_one(self, tmp_path, lungs):
        pack = pack_lookalike("montgomery", tmp_path, options={"lungs": lungs})
        root = tmp_path / "files" / "MontgomerySet" / "ManualMask"
        for row, name in enumerate(pack.index.volume.tolist()):
            left, right = (
                np.asarray(Image.open(root / side / f"{name}.png")) > 0 for side in ("leftMask", "rightMask")
            )
            expected = left | right if lungs == "merged" else left + 2 * right
            np.testing.assert_array_equal(pack.mask(row), expected)

    def test_missing_lung_is_named(self, tmp_path):
        write_lookalike("montgomery", tmp_path / "files")
        next((tmp_path / "files").rglob("leftMask/*_0002_0.png")).unlink()
        with pytest.raises(PackError, match=r"leftMask/MCUCXR_0002_0.png does not exist; both lungs"):
            pack_files("montgomery", tmp_path)

    def test_overlapping_lungs_are_not_separated(self, tmp_path):
        write_lookalike("montgomery", tmp_path / "files")
        for path in (tmp_path / "files").rglob("*Mask/*_0002_0.png"):
            Image.fromarray(np.ones((32, 32), bool)).save(path)
        with pytest.raises(PackError, match="overlap; pack them with lungs: merged"):
            pack_files("montgomery", tmp_path, {"lungs": "separate"})


class TestJsrt:
    @pytest.fixture
    def files(self, tmp_path):
        write_lookalike("jsrt", tmp_path / "files")
        return tmp_path / "files"

    def truth(self, files: Path, name: str) -> dict[str, np.ndarray]:
        masks = {path.parent.name: np.asarray(Image.open(path)) > 0 for path in files.rglob(f"{name}.gif")}
        return {
            "lungs": masks["left lung"] | masks["right lung"],
            "heart": masks["heart"],
            "clavicles": masks["left clavicle"] | masks["right clavicle"],
        }

    def test_overlapping_structures_have_a_bit_each(self, files, tmp_path):
        pack = pack_files("jsrt", tmp_path)
        assert (pack.mask_encoding, pack.class_names) == ("bits", ("background", "lungs", "heart", "clavicles"))
        overlap = 0
        for row, name in enumerate(pack.index.volume.tolist()):
            for bit, inside in enumerate(self.truth(files, name).values()):
                np.testing.assert_array_equal(pack.mask(row) >> bit & 1, inside.repeat(2, 0).repeat(2, 1))
            overlap += int((pack.mask(row) == 0b101).sum())
        assert overlap > 0

    def test_painted_structures_cover_earlier_ones(self, files, tmp_path):
        pack = pack_files("jsrt", tmp_path, {"overlap": "paint", "resolution": "masks"})
        truth = self.truth(files, str(pack.index.volume[0]))
        expected = np.select([truth["clavicles"], truth["heart"], truth["lungs"]], [3, 2, 1], 0)
        np.testing.assert_array_equal(pack.mask(0), expected)

    def test_intensities_are_turned_over_and_reduced_by_an_exact_mean(self, files, tmp_path):
        stored = np.frombuffer((files / "All247images" / "JPCLN005.IMG").read_bytes(), ">u2").reshape(32, 32)
        for resolution, expected in (
            ("images", 4095 - stored.astype(int)),
            ("masks", 4095 - stored.astype(np.float64).reshape(16, 2, 16, 2).mean(axis=(1, 3))),
        ):
            pack = pack_files("jsrt", tmp_path, {"resolution": resolution})
            row = pack.index.volume.tolist().index("JPCLN005")
            np.testing.assert_array_equal(pack.image(row)[0], expected)
            np.testing.assert_allclose(pack.index.spacing_mm[row], 0.175 * (1 if resolution == "images" else 2))

    def test_folds_are_the_splits(self, files, tmp_path):
        for fold in (1, 2):
            pack = pack_files("jsrt", tmp_path, {"test_fold": fold})
            held = {name for name, split in split_of_subjects(pack).items() if split == "test"}
            assert held == {path.stem for path in (files / "scratch" / f"fold{fold}" / "masks" / "heart").iterdir()}

    def test_values_beyond_twelve_bits_are_refused(self, files, tmp_path):
        np.full(32 * 32, 5000, ">u2").tofile(files / "All247images" / "JPCLN005.IMG")
        with pytest.raises(PackError, match=r"JPCLN005.IMG holds 5000; its 12 bits end at 4095"):
            pack_files("jsrt", tmp_path)

    def test_truncated_image_is_named(self, files, tmp_path):
        path = files / "All247images" / "JPCLN005.IMG"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(PackError, match=r"JPCLN005.IMG has 1948 bytes, which is no square"):
            pack_files("jsrt", tmp_path)
