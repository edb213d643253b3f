"""The packs of a study: finished files, or data sets that are packed into the store when they are first needed."""

from __future__ import annotations

import logging
from pathlib import Path

from raysweep import registry
from raysweep.data.pack import Pack, open_pack
from raysweep.datasets._packing import build_pack, existing_folder, options_of
from raysweep.errors import PackError, StoreError
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
        if source.file is not None:
            return open_pack(source.file)
        return open_pack(_packed(name, source, store))
    except PackError as error:
        raise PackError(f"packs.{name}: {error}") from error


def _packed(name: str, source: PackSource, store: Store) -> Path:
    if not store.is_local:
        raise StoreError(
            f"packs.{name} is packed on demand, which needs a local store; {store.uri} is remote. "
            "Pack it with `raysweep pack` and give packs a file."
        )
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
    target = store.local_path(f"packs/{name}-{content_id(recipe)[:12]}.h5")
    if not target.exists():
        _LOG.info("packing %s (%s) into %s", name, dataset, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        build_pack(dataset, folder, target, source.options)
    return target


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Return the relative name, size and modification time of every file, sorted."""
    found = []
    for path in sorted(existing_folder(folder).rglob("*")):
        if path.is_file():
            facts = path.stat()
            found.append((path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns))
    return found
