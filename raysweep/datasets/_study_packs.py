"""The packs of a study: finished files, or data sets that are packed into the store when they are first needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysweep import registry
from raysweep.data.pack import Pack
from raysweep.data.staging import cache_folder, open_located
from raysweep.datasets._packing import build_pack, existing_folder, options_of
from raysweep.errors import PackError
from raysweep.identity import content_id
from raysweep.store import Store
from raysweep.study import PackSource

_LOG = logging.getLogger(__name__)


def open_study_pack(name: str, source: PackSource, store: Store) -> Pack:
    """Return a study's pack, packing its data set into the store if that has not been done.

    A data set is packed again when its options, its packer's recipe, or the names, sizes or times of its files change;
    if the content is still the same, so is the pack's digest, and no stage runs again.

    Raises:
        PackError: naming the pack in the study, and what is wrong with it.
    """
    try:
        location = source.file if source.file is not None else _packed(name, source, store)
        if source.staged and "://" not in location:
            location = Path(location).absolute().as_uri()
        return open_located(location)
    except PackError as error:
        raise PackError(f"packs.{name}: {error}") from error


def _packed(name: str, source: PackSource, store: Store) -> str:
    """Return where the pack of a data set is in the store, made if it was not there."""
    dataset = str(source.dataset)
    module = registry.load("datasets", dataset)
    options = options_of(module, dataset, source.options)
    folder = None if source.source is None else Path(source.source)
    recipe = {
        "dataset": dataset,
        "recipe": module.RECIPE,
        "options": options.model_dump(mode="json"),
        "files": None if folder is None else _files(folder),
    }
    path = f"packs/{name}-{content_id(recipe)[:12]}.h5"
    if not store.exists(path):
        _LOG.info("packing %s (%s) into %s", name, dataset, store.path_uri(path))
        with _packing_place(store, path) as target:
            build_pack(dataset, folder, target, source.options)
    return store.path_uri(path)


@contextmanager
def _packing_place(store: Store, path: str) -> Iterator[Path]:
    """Yield where to write a pack: its place in a local store; on this node's disk if it is to be uploaded then.

    In both a packing that was killed finds what it had written, and goes on.
    """
    if store.is_local:
        target = store.local_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target
        return
    target = cache_folder() / "packing" / content_id(store.uri)[:12] / path
    target.parent.mkdir(parents=True, exist_ok=True)
    yield target
    store.upload(path, target)
    target.unlink()


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Return the relative name, size and modification time of every file, sorted."""
    found = []
    for path in sorted(existing_folder(folder).rglob("*")):
        if path.is_file():
            facts = path.stat()
            found.append((path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns))
    return found
