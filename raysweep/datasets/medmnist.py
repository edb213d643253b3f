"""MedMNIST: any 2D member in any resolution, from its one npz file.

The folder holds one file, such as ``pathmnist.npz`` (28 pixels) or ``pathmnist_224.npz``, with the arrays
``{train,val,test}_images``, (N, H, W) or (N, H, W, 3) uint8, and ``{train,val,test}_labels``, (N, 1) or (N, L). Arrays
are decompressed a piece at a time, so that the largest member needs no more memory than the smallest.

Source: Yang et al., MedMNIST v2, Scientific Data 2023. Its splits are kept; patients are not named in the files.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import SPLITS, Bucket
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._survey import About, Reading, Scan, Survey, intensity_range
from raysweep.errors import PackError, did_you_mean
from raysweep.settings import Settings

RECIPE = 1
ABOUT = About(
    data="twelve small 2D sets of many modalities, 28 to 224 pixels",
    access="free download from Zenodo, linked at medmnist.com",
    layout="one `NAME.npz` or `NAME_{64,128,224}.npz`, in a folder of its own or named by the option `member`",
    splits="official",
)

_MEMBERS: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth_muscle", "normal_colon_mucosa",
        "cancer_associated_stroma", "colorectal_adenocarcinoma_epithelium",
    ),
    "chestmnist": (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
        "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening", "hernia",
    ),
    "dermamnist": (
        "actinic_keratoses", "basal_cell_carcinoma", "benign_keratosis_like", "dermatofibroma", "melanoma",
        "melanocytic_nevi", "vascular_lesions",
    ),
    "octmnist": ("choroidal_neovascularization", "diabetic_macular_edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("grade_0", "grade_1", "grade_2", "grade_3", "grade_4"),
    "breastmnist": ("malignant", "normal_or_benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature_granulocytes", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "collecting_duct_connecting_tubule", "distal_convoluted_tubule", "glomerular_endothelial_cells",
        "interstitial_endothelial_cells", "leukocytes", "podocytes", "proximal_tubule_segments",
        "thick_ascending_limb",
    ),
    **dict.fromkeys(
        ("organamnist", "organcmnist", "organsmnist"),
        (
            "bladder", "femur_left", "femur_right", "heart", "kidney_left", "kidney_right", "liver", "lung_left",
            "lung_right", "pancreas", "spleen",
        ),
    ),
}  # fmt: skip
_MULTI_LABEL = "chestmnist"
_FILE = re.compile(r"([a-z]+mnist)(?:_\d+)?\.npz")


class Options(Settings):
    """Options of the MedMNIST packer."""

    member: str | None = None
    """Name of the file without its ending, where the folder holds several: pathmnist, pathmnist_224, ..."""


def survey(source: Path, options: Options, scan: Scan) -> Survey:
    """Look at the arrays' shapes, and read the labels.

    Raises:
        PackError: if there is not one file to pack, or its arrays are not those of the member.
    """
    path = _file(source, options)
    name = path.name.split(".")[0].split("_")[0]
    names = _MEMBERS[name]
    readings = []
    for split in SPLITS:
        labels = _vectors(path, split, names, is_multi_label=name == _MULTI_LABEL)
        shape = _shape(path, f"{split}_images")
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or shape[0] != len(labels):
            raise PackError(f"{path} has {split}_images of shape {shape} and {len(labels)} labels")
        bucket = Bucket(3 if len(shape) == 4 else 1, shape[1], shape[2], "uint8")
        names_of = [f"{split}/{number:06d}" for number in range(shape[0])]
        slices = tuple(
            SliceHeader(bucket, one, one, split, has_mask=False, annotated=True, labels=vector)
            for one, vector in zip(names_of, labels, strict=True)
        )
        readings.append(Reading(_read, (path, f"{split}_images"), slices, memory_bytes=32 * bucket.num_bytes))
    return Survey(
        readings,
        label_names=names,
        label_kind="multi-label" if name == _MULTI_LABEL else "multi-class",
        split_rule="official arrays train, val, test",
    )


def _file(source: Path, options: Options) -> Path:
    files = {path.stem: path for path in sorted(source.glob("*.npz"))}
    if options.member is not None:
        if options.member not in files:
            nearest = did_you_mean(options.member, files)
            raise PackError(f"{source} holds no {options.member}.npz.{nearest} It holds {', '.join(files) or 'none'}.")
        files = {options.member: files[options.member]}
    if len(files) != 1:
        raise PackError(f"{source} holds {len(files)} npz files ({', '.join(files)}): choose with the option member")
    (path,) = files.values()
    match = _FILE.fullmatch(path.name)
    if match is None or match.group(1) not in _MEMBERS:
        raise PackError(f"{path} is not named as a 2D member of MedMNIST: {', '.join(_MEMBERS)}")
    return path


@contextmanager
def _array(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """Open an array of an npz file as a stream behind its header, with its shape."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(stream)
            if is_fortran or dtype != np.uint8:
                raise PackError(f"{path} holds {name} as {dtype}; expected is uint8, image by image")
            yield stream, shape
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise PackError(f"{path} cannot be read, or lacks {name}: {error}. Download it again.") from error


def _shape(path: Path, name: str) -> tuple[int, ...]:
    with _array(path, name) as (_, shape):
        return shape


def _vectors(path: Path, split: str, names: tuple[str, ...], *, is_multi_label: bool) -> list[tuple[float, ...]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored = arrays[f"{split}_labels"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise PackError(f"{path} cannot be read, or lacks {split}_labels: {error}. Download it again.") from error
    width = len(names) if is_multi_label else 1
    if stored.ndim != 2 or stored.shape[1] != width or stored.min() < 0 or stored.max() >= max(2, len(names)):
        raise PackError(f"{path} has {split}_labels of shape {stored.shape} from {stored.min()} to {stored.max()}")
    if is_multi_label:
        return [tuple(map(float, line)) for line in stored.tolist()]
    vectors = [tuple(float(code == place) for place in range(len(names))) for code in range(len(names))]
    return [vectors[code] for code in stored[:, 0].tolist()]


def _read(path: Path, name: str) -> Iterator[SlicePixels]:
    with _array(path, name) as (stream, shape):
        size = int(np.prod(shape[1:]))
        for _ in range(shape[0]):
            image = _image(stream, size, shape)
            low, high = intensity_range(image)
            yield SlicePixels(image, None, low, high)


def _image(stream: Any, size: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    content = stream.read(size)
    if len(content) != size:
        raise ValueError("the array ends early")
    image = np.frombuffer(content, np.uint8).reshape(shape[1:])
    return image if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0))
