"""Fixtures that every test may use: tiny packs, a tiny store, studies over them, one Ray cluster for the session."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raysweep.store import Store
from raysweep.study import Study
from raysweep.study.load import validate_study
from tests.studies import study_document, with_changes

CARDIAC_OPTIONS = {"patients": 12, "slices": 2, "frames": 2, "size_px": [40, 48]}
LEAVES_OPTIONS = {"images": 12, "size": 40}


_STARTS_RAY = "tests/integration/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that start Ray, which take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(_STARTS_RAY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let ``pytest -n`` keep a file in one process, whose fixtures are made once, and all that starts Ray in one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _STARTS_RAY if nodeid.startswith(_STARTS_RAY) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # it would begin with the files of the most tests
    return ByFile(config, log)


@pytest.fixture(scope="session")
def cardiac_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic cardiac slices of 12 patients: 32 train, 8 val and 8 test slices, all annotated."""
    from raysweep.datasets._packing import build_pack

    out = tmp_path_factory.mktemp("packs") / "cardiac.h5"
    return build_pack("synthetic-cardiac", None, out, CARDIAC_OPTIONS, workers=1)


@pytest.fixture(scope="session")
def leaves_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small dead-leaves images, a second domain without masks."""
    from raysweep.datasets._packing import build_pack

    out = tmp_path_factory.mktemp("packs") / "leaves.h5"
    return build_pack("synthetic-dead-leaves", None, out, LEAVES_OPTIONS, workers=1)


@pytest.fixture(scope="session")
def label_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 32 pixels a side with 14 labels that do not exclude each other: 40 train, 20 val and 20 test images."""
    from raysweep.datasets._packing import build_pack
    from tests.lookalikes.medmnist import write_lookalike

    folder = tmp_path_factory.mktemp("chestmnist")
    write_lookalike(folder, subjects=40, size=32, member="chestmnist")
    return build_pack("medmnist", folder, folder / "labels.h5", {}, workers=1)


@pytest.fixture
def tiny_store(tmp_path: Path) -> Store:
    """An empty store of the test's own."""
    return Store(tmp_path / "store").prepare()


@pytest.fixture(scope="session")
def tiny_study(cardiac_pack: Path, leaves_pack: Path) -> Callable[..., Study]:
    """Build a study that runs in seconds: ``tiny_study({"grid.seed": [0, 1]})`` sets dotted keys."""

    def build(changes: dict[str, Any] | None = None) -> Study:
        return validate_study(with_changes(study_document(str(cardiac_pack), str(leaves_pack)), changes or {}))

    return build


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster of two CPUs for all tests that need Ray."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 10**6,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server of this session; the environment holds credentials for it."""
    from tests.s3_server import s3_server

    nothing = str(tmp_path_factory.mktemp("aws") / "nothing")
    with pytest.MonkeyPatch.context() as environment, s3_server() as address:
        for key, value in {
            "AWS_ACCESS_KEY_ID": "raysweep",
            "AWS_SECRET_ACCESS_KEY": "only-for-tests",
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
            "AWS_CONFIG_FILE": nothing,
        }.items():
            environment.setenv(key, value)
        yield address


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Azure Blob Storage account of this session; the environment holds its key."""
    from tests import azure_server

    if not azure_server.is_installed():
        pytest.skip(f"{azure_server.PROGRAM} is not installed: npm install --global azurite")
    with (
        pytest.MonkeyPatch.context() as environment,
        azure_server.azure_server(tmp_path_factory.mktemp("azure")) as address,
    ):
        environment.setenv("AZURE_STORAGE_ACCOUNT_NAME", azure_server.ACCOUNT)
        environment.setenv("AZURE_STORAGE_ACCOUNT_KEY", azure_server.KEY)
        yield address
