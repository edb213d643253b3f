"""Bringing weights into the store: fetched or imported once, converted, checked against their architecture."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from raysweep import zoo
from raysweep.errors import StoreError, StudyError, WeightsError, did_you_mean
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.download import Progress, download
from raysweep.sources.fit import LoadReport, encoder_part, fit_state, refusal
from raysweep.sources.formats import read_tensors
from raysweep.sources.stored import (
    WeightsRecord,
    published_digest,
    read_record,
    weights_path,
    write_record,
)
from raysweep.store import Store
from raysweep.zoo import Published

IMAGENET = Normalisation(mean=zoo.IMAGENET.mean, std=zoo.IMAGENET.std)
"""What an encoder from a file is taken to expect, unless the study says otherwise."""
_RGB = 3


def ensure_weights(store: Store, name: str, *, progress: Progress | None = None) -> None:
    """Have weights in the store by their timm or zoo name, fetching them if they are not there.

    Raises:
        WeightsError: if nothing goes by that name, or the weights cannot be fetched.
    """
    if "." not in name:
        entry = zoo.find(name)
        if entry.timm is None:
            if not store.exists(weights_path(name)):
                fetch_published(store, entry, progress=progress)
            return
        name = entry.timm
    if not store.exists(weights_path(name)):
        _fetch_timm(store, name)


def fetch_published(store: Store, entry: Published, *, progress: Progress | None = None) -> WeightsRecord:
    """Download published weights and bring them into the store; an interrupted download is continued.

    Raises:
        WeightsError: if a person must get them, the download fails, or they are not what the zoo says.
    """
    if not entry.is_downloadable:
        raise WeightsError(
            f"weights {entry.name!r} cannot be downloaded without a person: {entry.click_through} "
            f"(page: {entry.published}). Then: raysweep weights import FILE --as {entry.name}"
        )
    with _download_folder(store, entry.name) as folder:
        files = []
        for url in entry.urls:
            partial = folder / url.split("?")[0].rsplit("/", 1)[-1]
            is_whole = len(entry.urls) == 1
            download(
                url,
                partial,
                sha256=entry.sha256 if is_whole else None,
                size_bytes=entry.size_bytes if is_whole else None,
                progress=progress,
            )
            files.append(partial)
        return import_published(store, entry, files, origin=entry.urls[0])


@contextmanager
def _download_folder(store: Store, name: str) -> Iterator[Path]:
    """Yield where parts of a download wait; emptied when it is done, kept when it is not."""
    if store.is_local:
        folder = store.local_path(f"weights/downloads/{name}")
    else:
        folder = Path(tempfile.gettempdir()) / "raysweep-downloads" / name
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def import_published(store: Store, entry: Published, files: Sequence[Path], *, origin: str) -> WeightsRecord:
    """Bring the published file (or files) of weights into the store, under the zoo's name.

    Raises:
        WeightsError: if the file cannot be read, is another than the zoo knows, or does not fit the architecture.
    """
    digest = published_digest(files)
    if entry.sha256 is not None and digest != f"sha256:{entry.sha256}":
        raise WeightsError(
            f"{files[0]} is not the published file of {entry.name!r}: it has {digest}, the zoo expects "
            f"sha256:{entry.sha256}. To use it as it is, give its path in the study: {{weights: {{file: ...}}}}"
        )
    known = read_record(store, entry.name)
    if known is not None and known.digest != digest:
        raise WeightsError(
            f"the store has other weights as {entry.name!r} ({known.digest}, from {known.origin}); delete "
            f"{weights_path(entry.name)} and its record there if these ({digest}) are to replace them: studies that "
            "used the others then run again"
        )
    with _readable(entry, files) as file:
        state = read_tensors(file)
    kept, report = checked_part(entry.architecture, state, name=entry.name, prefix=entry.prefix)
    seen = Normalisation(mean=entry.input.mean, std=entry.input.std)
    metadata = {"normalisation": seen.model_dump_json()}
    store.write_bytes(weights_path(entry.name), save_safetensors(kept, metadata))
    record = WeightsRecord(
        name=entry.name,
        architecture=entry.architecture,
        digest=digest,
        size_bytes=sum(file.stat().st_size for file in files),
        origin=origin,
        num_tensors=len(kept),
        prefix=report.prefix,
        dropped=len(report.dropped),
    )
    write_record(store, record)
    return record


@contextmanager
def _readable(entry: Published, files: Sequence[Path]) -> Iterator[Path]:
    """Yield the checkpoint to read: the file, the index among several, or the archive's member."""
    if len(files) > 1:
        yield next((file for file in files if file.suffix == ".index"), files[0])
    elif entry.member is not None and zipfile.is_zipfile(files[0]) and not files[0].name.endswith(entry.member):
        with zipfile.ZipFile(files[0]) as archive, tempfile.TemporaryDirectory() as folder:
            names = [name for name in archive.namelist() if name.split("/")[-1] == entry.member]
            if not names:
                raise WeightsError(
                    f"{files[0]} has no member {entry.member!r}.{did_you_mean(entry.member, archive.namelist())}"
                )
            target = Path(folder) / entry.member
            with archive.open(names[0]) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
            yield target
    else:
        yield files[0]


def checked_part(
    architecture: str, state: dict[str, Tensor], *, name: str, prefix: str | None
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the encoder's part of a checkpoint, and how it fits a three-channel encoder of an architecture.

    Raises:
        WeightsError: if it does not fit.
    """
    backbone = Backbone(encoder=architecture, channels=_RGB)
    target = _target(backbone)
    try:
        _, report = fit_state(target, backbone, state, name=name, prefix=prefix)
    except WeightsError as error:
        raise WeightsError(f"weights {name}: {error}") from error
    if not report.is_complete:
        raise WeightsError(refusal(report, backbone, state))
    return encoder_part(state, report.prefix), report


def _target(backbone: Backbone) -> dict[str, Tensor]:
    """Return keys and shapes of an encoder, without allocating it."""
    from raysweep.sources.encoder import build_timm_model

    with torch.device("meta"):
        try:
            model = build_timm_model(backbone)
        except StudyError:  # no feature extractor as yet: hold the weights against the whole model
            model = timm.create_model(backbone.encoder, num_classes=0, in_chans=backbone.channels)
    state: dict[str, Tensor] = model.state_dict()
    return state


def _fetch_timm(store: Store, name: str) -> None:
    """Fetch timm's pretrained weights into the store.

    Raises:
        WeightsError: if timm does not know the name, or the download fails.
    """
    path = weights_path(name)
    if not timm.is_model_pretrained(name):
        raise WeightsError(
            f"timm {timm.__version__} has no pretrained weights named {name!r}."
            f"{did_you_mean(name, timm.list_pretrained(name.split('.')[0] + '*'))} See timm.list_pretrained()"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"weights {name!r} could not be downloaded: {error}. Where there is no network, put a safetensors file of "
            f"the model's state dict at {store.uri}/{path}, or import it: raysweep weights import FILE --as {name}"
        ) from error
    _store_timm(store, name, model.state_dict())


def import_timm(store: Store, name: str, file: Path) -> WeightsRecord:
    """Bring a file that holds timm's weights of a name into the store.

    Raises:
        WeightsError: if timm does not know the name, or the file does not fit its architecture.
    """
    if not timm.is_model_pretrained(name):
        raise WeightsError(f"timm {timm.__version__} knows no weights named {name!r}; see timm.list_pretrained()")
    kept, report = checked_part(name.split(".")[0], read_tensors(file), name=name, prefix=None)
    _store_timm(store, name, kept)
    record = WeightsRecord(
        name=name,
        architecture=name.split(".")[0],
        digest=published_digest([file]),
        size_bytes=file.stat().st_size,
        origin=str(file),
        num_tensors=len(kept),
        prefix=report.prefix,
        dropped=len(report.dropped),
    )
    write_record(store, record)
    return record


def _store_timm(store: Store, name: str, state: dict[str, Tensor]) -> None:
    metadata = {"normalisation": _normalisation_of(name).model_dump_json()}
    store.write_bytes(weights_path(name), save_safetensors({k: v.contiguous() for k, v in state.items()}, metadata))


def read_stored_weights(store: Store, name: str) -> tuple[dict[str, Tensor], Normalisation]:
    """Read weights that the store keeps under a name, and the input they were trained on.

    Raises:
        StoreError: if the store does not have them.
        WeightsError: if they are corrupt.
    """
    path = weights_path(name)
    data = store.read_bytes(path)
    if data is None:
        raise StoreError(
            f"store {store.uri} has no {path}: `raysweep run` fetches it before any stage starts, and "
            f"`raysweep weights fetch {name}` does so now"
        )
    try:
        tensors, recorded = load_safetensors(data), read_metadata(data).get("normalisation")
        normalisation = Normalisation.model_validate_json(recorded) if recorded else _normalisation_of(name)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{store.uri}/{path} is corrupt: {error}. Delete it to have it fetched again.") from error
    return tensors, normalisation


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that has been found whole."""
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header.get("__metadata__", {})


def _normalisation_of(name: str) -> Normalisation:
    """Return the input that the zoo or timm records for a name; ImageNet's where neither does."""
    if name in zoo.weights():
        seen = zoo.find(name).input
        return Normalisation(mean=seen.mean, std=seen.std)
    config = timm.get_pretrained_cfg(name)
    return IMAGENET if config is None else Normalisation(mean=tuple(config.mean), std=tuple(config.std))
