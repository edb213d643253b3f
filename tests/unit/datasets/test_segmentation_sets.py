from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from packing import pack_files, pack_lookalike, split_of_subjects
from PIL import Image

from raysweep.errors import PackError
from tests.lookalikes import write_lookalike
from tests.lookalikes._drawing import save_nifti


def nifti(path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


class TestDrive:
    def test_pixels_outside_the_field_of_view_are_ignored(self, tmp_path):
        pack = pack_lookalike("drive", tmp_path)
        assert (pack.ignore_label, pack.class_names) == (255, ("background", "vessel"))
        root = tmp_path / "files" / "DRIVE"
        for row, name in enumerate(pack.index.volume.tolist()):
            number, part = name.split("_")
            vessels = np.asarray(Image.open(root / part / "1st_manual" / f"{number}_manual1.gif")) > 0
            view = np.asarray(Image.open(root / part / "mask" / f"{name}_mask.gif")) > 0
            np.testing.assert_array_equal(pack.mask(row), np.where(view, vessels, 255))
            assert (pack.mask(row) == 255).any()
            assert pack.image(row).shape == (3, 32, 32)

    def test_outside_can_be_background(self, tmp_path):
        pack = pack_lookalike("drive", tmp_path, options={"outside": "background"})
        assert pack.ignore_label is None
        assert max(pack.mask(row).max() for row in range(len(pack))) == 1

    def test_official_folders_are_the_splits(self, tmp_path):
        pack = pack_lookalike("drive", tmp_path)
        assert {s for s, p in split_of_subjects(pack).items() if p == "test"} == {f"{n:02d}" for n in range(1, 6)}
        assert list(split_of_subjects(pack).values()).count("val") == 1

    def test_mask_of_several_levels_is_refused(self, tmp_path):
        write_lookalike("drive", tmp_path / "files")
        path = next((tmp_path / "files").rglob("training/1st_manual/06_manual1.gif"))
        Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)).save(path)
        with pytest.raises(PackError, match=r"06_manual1.gif holds the levels \[0, 1, 2"):
            pack_files("drive", tmp_path)

    def test_test_images_without_vessels_are_unlabelled(self, tmp_path):
        write_lookalike("drive", tmp_path / "files")
        for path in (tmp_path / "files").rglob("test/1st_manual/*.gif"):
            path.unlink()
        pack = pack_files("drive", tmp_path)
        assert not pack.index.annotated[pack.select("test")].any()


class TestMnms:
    def test_marked_frames_have_masks_and_counts_start_at_0(self, tmp_path):
        pack = pack_lookalike("mnms", tmp_path)
        for row in range(len(pack)):
            code, frame, z = pack.index.subject[row], pack.index.frame[row], pack.index.slice_number[row]
            (path,) = (tmp_path / "files").rglob(f"{code}_sa.nii.gz")
            np.testing.assert_array_equal(pack.image(row)[0], nifti(path)[:, :, z, frame].T)
            labelled = "Unlabeled" not in path.parts and frame in (0, 2)
            assert pack.index.annotated[row] == labelled
            if labelled:
                truth = nifti(path.with_name(f"{code}_sa_gt.nii.gz"))
                np.testing.assert_array_equal(pack.mask(row), truth[:, :, z, frame].T)
        np.testing.assert_allclose(pack.index.spacing_mm, 1.25)

    def test_folders_are_the_splits_and_pathology_a_label_of_the_subject(self, tmp_path):
        pack = pack_lookalike("mnms", tmp_path, options={"cine": False})
        assert sorted(split_of_subjects(pack).values()) == ["test", "train", "train", "val"]
        assert pack.index.annotated.all()
        assert pack.label_names == ("DCM", "HCM", "NOR")
        np.testing.assert_array_equal(pack.index.labels[pack.index.subject == "A0S9V0"][0], [0, 0, 1])

    def test_patient_without_a_row_is_named(self, tmp_path):
        write_lookalike("mnms", tmp_path / "files")
        table = next((tmp_path / "files").rglob("*.csv"))
        table.write_text(table.read_text().replace("A0S9V0", "A9S9V9"))
        with pytest.raises(PackError, match="has no row for A0S9V0"):
            pack_files("mnms", tmp_path)


class TestCamus:
    def test_frames_between_end_diastole_and_end_systole(self, tmp_path):
        pack = pack_lookalike("camus", tmp_path)
        root = tmp_path / "files" / "database_nifti"
        for row in range(len(pack)):
            patient, view, frame = *str(pack.index.volume[row]).split("_"), int(pack.index.frame[row])
            sequence = nifti(root / patient / f"{patient}_{view}_half_sequence.nii.gz")
            np.testing.assert_array_equal(pack.image(row)[0], sequence[:, :, frame - 1].T)
            odd = int(patient[-1]) % 2 == 1  # those have masks of the whole sequence
            assert pack.index.annotated[row] == (odd or frame in (1, 4))
        np.testing.assert_allclose(pack.index.spacing_mm[0], [0.154, 0.308], rtol=1e-6)
        assert pack.label_scopes == ("volume",) * 3

    def test_without_sequences_only_marked_frames_are_packed(self, tmp_path):
        pack = pack_lookalike("camus", tmp_path, options={"sequences": False})
        assert sorted(set(pack.index.frame.tolist())) == [1, 4]
        assert pack.index.annotated.all()

    def test_official_subgroups_or_drawn_splits(self, tmp_path):
        pack = pack_lookalike("camus", tmp_path / "a")
        names = (tmp_path / "a" / "files" / "database_split" / "subgroup_testing.txt").read_text().split()
        assert {s for s, p in split_of_subjects(pack).items() if p == "test"} == set(names)
        drawn = pack_lookalike("camus", tmp_path / "b", lists=False)
        assert set(split_of_subjects(drawn).values()) == {"train", "val", "test"}
        assert "drawn by patient" in drawn.split_rule


class TestIsic:
    def test_masks_and_official_folders(self, tmp_path):
        pack = pack_lookalike("isic", tmp_path)
        for row, name in enumerate(pack.index.volume.tolist()):
            (path,) = (tmp_path / "files").rglob(f"{name}_segmentation.png")
            np.testing.assert_array_equal(pack.mask(row), np.asarray(Image.open(path)) // 255)
            (image,) = (tmp_path / "files").rglob(f"{name}.jpg")
            np.testing.assert_array_equal(pack.image(row), np.moveaxis(np.asarray(Image.open(image)), -1, 0))
        assert pack.split_rule == "official folders"
        assert [len(pack.select(split)) for split in ("train", "val", "test")] == [4, 2, 2]

    def test_photographs_of_one_lesion_stay_together(self, tmp_path):
        pack = pack_lookalike("isic", tmp_path, task="diagnosis", subjects=20)
        assert len(set(pack.index.subject.tolist())) == 10
        assert len(split_of_subjects(pack)) == 10
        assert pack.label_kind == "multi-class"
        assert set(pack.index.split.tolist()) == {"train", "val", "test"}

    def test_2019_has_no_masks(self, tmp_path):
        write_lookalike("isic", tmp_path / "files")
        with pytest.raises(PackError, match="ISIC 2019 has no masks"):
            pack_files("isic", tmp_path, {"year": 2019})


class TestMedMnist:
    @pytest.mark.parametrize(("member", "size"), [("bloodmnist", 28), ("chestmnist", 64), ("organamnist", 28)])
    def test_images_labels_and_splits_are_those_of_the_arrays(self, tmp_path, member, size):
        pack = pack_lookalike("medmnist", tmp_path, member=member, size=size)
        arrays = np.load(next((tmp_path / "files").glob("*.npz")))
        for split in ("train", "val", "test"):
            rows = pack.select(split)
            labels = pack.index.labels[rows]
            stored = arrays[f"{split}_labels"]
            if member == "chestmnist":
                np.testing.assert_array_equal(labels, stored)
            else:
                np.testing.assert_array_equal(labels.argmax(axis=1), stored[:, 0])
            for row, image in zip(rows.tolist(), arrays[f"{split}_images"], strict=True):
                np.testing.assert_array_equal(pack.image(row), np.moveaxis(np.atleast_3d(image), -1, 0))
        assert pack.label_kind == ("multi-label" if member == "chestmnist" else "multi-class")

    def test_truncated_download_is_named(self, tmp_path):
        write_lookalike("medmnist", tmp_path / "files")
        path = next((tmp_path / "files").glob("*.npz"))
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(PackError, match=r"bloodmnist.npz cannot be read, or lacks train_labels"):
            pack_files("medmnist", tmp_path)

    def test_several_members_need_the_option(self, tmp_path):
        for member in ("bloodmnist", "octmnist"):
            write_lookalike("medmnist", tmp_path / "files", member=member)
        with pytest.raises(PackError, match="holds 2 npz files"):
            pack_files("medmnist", tmp_path)
        assert pack_files("medmnist", tmp_path, {"member": "octmnist"}).label_names[-1] == "normal"
        with pytest.raises(PackError, match="Did you mean 'octmnist'"):
            pack_files("medmnist", tmp_path, {"member": "octmist"})


class TestNnunet:
    def test_channels_keep_value_and_scale_and_test_labels_are_the_test_split(self, tmp_path):
        pack = pack_lookalike("nnunet", tmp_path)
        for row in range(len(pack)):
            name, z = str(pack.index.volume[row]), int(pack.index.slice_number[row])
            channels = [nifti(p) for p in sorted((tmp_path / "files").rglob(f"{name}_000?.nii.gz"))]
            for channel, volume in enumerate(channels):
                np.testing.assert_array_equal(pack.image(row)[channel], volume[:, :, z].T)
                low, high = np.percentile(volume, (0.5, 99.5))
                np.testing.assert_allclose(pack.index.channel_low[row, channel], low, rtol=1e-6)
                np.testing.assert_allclose(pack.index.channel_high[row, channel], high, rtol=1e-6)
            (mask,) = (tmp_path / "files").rglob(f"labels*/{name}.nii.gz")
            np.testing.assert_array_equal(pack.mask(row), nifti(mask)[:, :, z].T)
        assert pack.image(0).dtype == np.int16  # the smallest that holds uint8 and int16
        held = {s for s, p in split_of_subjects(pack).items() if p == "test"}
        assert held == {"case_004", "case_005"}
        np.testing.assert_allclose(pack.index.spacing_mm[0], [1.1, 0.9], rtol=1e-6)

    def test_regions_that_overlap_become_bits(self, tmp_path):
        labels = {"background": 0, "whole": [1, 2], "core": 2}
        pack = pack_lookalike("nnunet", tmp_path, labels=labels)
        assert (pack.mask_encoding, pack.class_names) == ("bits", ("background", "whole", "core"))
        (mask,) = (tmp_path / "files").rglob(f"labels*/{pack.index.volume[0]}.nii.gz")
        stored = nifti(mask)[:, :, 0].T
        np.testing.assert_array_equal(pack.mask(0) & 1, np.isin(stored, (1, 2)))
        np.testing.assert_array_equal(pack.mask(0) >> 1 & 1, stored == 2)

    def test_ignore_label_becomes_255(self, tmp_path):
        pack = pack_lookalike("nnunet", tmp_path, labels={"background": 0, "edema": 1, "ignore": 2})
        assert (pack.ignore_label, pack.class_names) == (255, ("background", "edema"))
        assert set(np.unique(pack.mask(0)).tolist()) == {0, 1, 255}

    @pytest.mark.parametrize("flips", [(-1, -1, 1), (1, -1, -1)])
    @pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
    def test_planes_follow_the_orientation_of_the_file(self, tmp_path, plane, flips):
        """Reference: the voxels at world coordinates, found through the affine alone."""
        pack = pack_lookalike("nnunet", tmp_path, options={"plane": plane}, size=12, subjects=3, flips=flips)
        name = str(pack.index.volume[0])
        path = next((tmp_path / "files").rglob(f"{name}_0000.nii.gz"))
        volume, affine = nifti(path), nibabel.load(path).affine
        places = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
        world = places @ affine[:3, :3].T + affine[:3, 3]  # right, anterior, superior
        # As radiologists look: columns towards the patient's left or back, rows towards the back or the feet.
        columns, rows, depth = {
            "axial": (-world[..., 0], -world[..., 1], world[..., 2]),
            "coronal": (-world[..., 0], -world[..., 2], -world[..., 1]),
            "sagittal": (-world[..., 1], -world[..., 2], -world[..., 0]),
        }[plane]
        order = np.lexsort((columns.ravel(), rows.ravel(), depth.ravel()))
        expected = volume.ravel()[order]
        chosen = np.flatnonzero(pack.index.volume == name)
        chosen = chosen[np.argsort(pack.index.slice_number[chosen])]
        found = np.concatenate([pack.image(row)[0].ravel() for row in chosen.tolist()])
        np.testing.assert_array_equal(found, expected)
        spacing = dict(zip("xyz", (0.9, 1.1, 3.0), strict=True))
        pair = {"axial": "yx", "coronal": "zx", "sagittal": "zy"}[plane]
        np.testing.assert_allclose(pack.index.spacing_mm[0], [spacing[axis] for axis in pair], rtol=1e-6)

    def test_2d_images_are_packed_too(self, tmp_path):
        pack = pack_lookalike("nnunet", tmp_path, ending=".png", test_set=False)
        assert (len(pack), pack.num_channels) == (6, 2)
        assert set(split_of_subjects(pack).values()) == {"train", "val", "test"}

    def test_first_version_of_the_format_is_read(self, tmp_path):
        write_lookalike("nnunet", tmp_path / "files")
        settings = {"modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "1": "edema", "2": "core"}}
        (tmp_path / "files" / "dataset.json").write_text(json.dumps(settings))
        assert pack_files("nnunet", tmp_path).class_names == ("background", "edema", "core")

    @pytest.mark.parametrize(
        ("break_it", "message"),
        [
            (lambda f: next(f.rglob("case_001_0001.nii.gz")).unlink(), r"has the channels \[0\] of case_001"),
            (lambda f: [p.unlink() for p in f.rglob("case_001_000?.nii.gz")], r"case_001.nii.gz has no image"),
            (lambda f: (f / "dataset.json").write_text("{"), r"dataset.json is not valid JSON"),
            (lambda f: (f / "dataset.json").write_text("{}"), r"dataset.json has no labels"),
            (
                lambda f: save_nifti(
                    f / "labelsTr" / "case_001.nii.gz", np.full((28, 24, 3), 7, np.uint8), (0.9, 1.1, 3.0), (-1, -1)
                ),
                r"case_001.nii.gz has the label 7; dataset.json names 0, 1, 2",
            ),
            (
                lambda f: save_nifti(
                    f / "labelsTr" / "case_001.nii.gz", np.zeros((28, 24, 3), np.uint8), (0.9, 1.1, 3.0)
                ),
                r"case_001.nii.gz covers other voxels than case_001_0000.nii.gz",
            ),
            (
                lambda f: next(f.rglob("case_001_0001.nii.gz")).write_bytes(b"no image"),
                r"case_001_0001.nii.gz cannot be read as NIfTI",
            ),
        ],
    )
    def test_defects_are_named(self, tmp_path, break_it, message):
        write_lookalike("nnunet", tmp_path / "files")
        break_it(tmp_path / "files")
        with pytest.raises(PackError, match=message):
            pack_files("nnunet", tmp_path)

    def test_subject_is_found_in_the_name(self, tmp_path):
        pack = pack_lookalike("nnunet", tmp_path, options={"subject": "case_(00[0-9])"})
        assert set(pack.index.subject.tolist()) == {f"00{n}" for n in range(6)}


class TestBids:
    def test_sessions_contrasts_masks_and_participants(self, tmp_path):
        pack = pack_lookalike("bids", tmp_path, options={"plane": "stored"})
        assert pack.label_names == ("control", "patient")
        for row in range(len(pack)):
            name, z = str(pack.index.volume[row]), int(pack.index.slice_number[row])
            for channel, suffix in enumerate(("T1w", "FLAIR")):
                (path,) = (tmp_path / "files").rglob(f"{name}_{suffix}.nii.gz")
                np.testing.assert_array_equal(pack.image(row)[channel], nifti(path)[:, :, z].T)
            assert pack.index.annotated[row]
            assert (pack.index.mask_position[row] >= 0) == (pack.index.subject[row] != "sub-01")
        assert len(set(pack.index.volume.tolist())) == 9
        assert np.isnan(pack.index.labels[pack.index.subject == "sub-06"]).all()

    def test_two_masks_of_one_image_are_named(self, tmp_path):
        write_lookalike("bids", tmp_path / "files")
        (path,) = (tmp_path / "files").rglob("sub-02_ses-1_dseg.nii.gz")
        other = tmp_path / "files" / "derivatives" / "other" / path.name
        other.parent.mkdir()
        other.write_bytes(path.read_bytes())
        with pytest.raises(PackError, match=r"are both masks of .*sub-02_ses-1_T1w.nii.gz"):
            pack_files("bids", tmp_path)

    def test_participant_without_a_row_is_named(self, tmp_path):
        options = write_lookalike("bids", tmp_path / "files")
        table = tmp_path / "files" / "participants.tsv"
        table.write_text(table.read_text().replace("sub-03", "sub-33"))
        with pytest.raises(PackError, match=r"has no row for sub-03. Did you mean 'sub-33'"):
            pack_files("bids", tmp_path, options)


class TestImageCsv:
    def test_yes_no_uncertain_and_unknown(self, tmp_path):
        pack = pack_lookalike("image-csv", tmp_path)
        expected = np.array([np.nan, 1, 0, -1] * 4, np.float32)
        np.testing.assert_array_equal(pack.index.labels[:, 1], expected)
        assert len(set(pack.index.subject.tolist())) == 8

    def test_class_column_and_published_splits(self, tmp_path):
        write_lookalike("image-csv", tmp_path / "files")
        lines = [f"images/{n:03d}.png,{('train', 'val', 'test')[n % 3]},{('cat', 'dog')[n % 2]}" for n in range(12)]
        (tmp_path / "files" / "labels.csv").write_text("\n".join(["image,split,kind", *lines]))
        pack = pack_files("image-csv", tmp_path, {"class_column": "kind"})
        assert pack.label_names == ("cat", "dog")
        np.testing.assert_array_equal(pack.index.labels[:, 1], [0, 1] * 6)
        assert pack.index.split.tolist() == ["train", "val", "test"] * 4
        assert pack.split_rule == "column split"

    def test_subject_in_two_splits_is_refused(self, tmp_path):
        write_lookalike("image-csv", tmp_path / "files")
        text = "image,subject,split,x\nimages/000.png,a,train,1\nimages/001.png,a,test,0\n"
        (tmp_path / "files" / "labels.csv").write_text(text)
        with pytest.raises(PackError, match="subject 'a' is in the splits 'train' and 'test'"):
            pack_files("image-csv", tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("image,x\nimages/000.png,yes\n", "has 'yes' in column 'x'"),
            ("image,x\nimages/999.png,1\n", "names the image 'images/999.png', which is not in"),
            ("image,x\nimages/000.png,1,0\n", "line 2, has 3 columns; its header has 2"),
            ("picture,x\nimages/000.png,1\n", "has no column 'image'"),
            ("image,split,x\nimages/000.png,valid,1\n", "has the split 'valid'"),
        ],
    )
    def test_defects_of_the_table_are_named(self, tmp_path, text, message):
        write_lookalike("image-csv", tmp_path / "files")
        (tmp_path / "files" / "labels.csv").write_text(text)
        with pytest.raises(PackError, match=message):
            pack_files("image-csv", tmp_path)
