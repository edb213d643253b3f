from __future__ import annotations

import errno
import gc
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from raysweep.data import staging
from raysweep.data.staging import PackCache, cache_folder, open_located
from raysweep.errors import PackError
from raysweep.store import Store
from tests.s3_server import faulty_proxy, new_bucket


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's cache, empty."""
    staging._opened.clear()
    staging._latest.clear()
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def remote(s3: str, cardiac_pack: Path) -> str:
    """A pack in a bucket, its server without faults."""
    store = Store(new_bucket(s3)).prepare()
    store.upload("packs/cardiac.h5", cardiac_pack)
    return store.path_uri("packs/cardiac.h5")


def shared(folder: Path, pack: Path, name: str) -> str:
    """Put a copy of a pack into a shared folder and return its URI."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(pack, folder / name)
    return (folder / name).as_uri()


def forget() -> None:
    """Let go of packs as a process does that reads another, or ends."""
    staging._latest.clear()
    gc.collect()


def copies(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*.h5"))


def test_remote_pack_is_read_from_a_copy_of_its_own(remote, cardiac_pack, cache):
    pack = open_located(remote)
    assert pack.path.parent == cache
    assert pack.location == remote
    assert (pack.image(3) == open_located(str(cardiac_pack)).image(3)).all()
    assert open_located(remote, pack.digest) is pack
    assert len(copies(cache)) == 1
    assert pickle.loads(pickle.dumps(pack)).digest == pack.digest


def test_path_is_read_in_place(cardiac_pack, cache):
    pack = open_located(str(cardiac_pack))
    assert pack.path == cardiac_pack
    assert copies(cache) == []


def test_processes_that_come_together_share_one_copy(s3, cardiac_pack, cache):
    uri = new_bucket(s3)
    Store(uri).upload("cardiac.h5", cardiac_pack)
    code = "from raysweep.data.staging import open_located; import sys; print(open_located(sys.argv[1]).digest)"
    with faulty_proxy(s3) as proxy:
        behind = Store(uri.replace(s3, proxy.address)).path_uri("cardiac.h5")
        command = [sys.executable, "-c", code, behind]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(3)]
        printed = {process.communicate(timeout=60)[0] for process in started}
        assert [line.partition(" ")[0] for line in proxy.requests].count("GET") == 1
    assert len(printed) == 1
    assert len(copies(cache)) == 1


def test_pack_that_has_changed_is_copied_again(tmp_path, cardiac_pack, leaves_pack, cache):
    uri = shared(tmp_path / "shared", cardiac_pack, "a.h5")
    first = open_located(uri)
    shared(tmp_path / "shared", leaves_pack, "a.h5")
    assert open_located(uri).dataset == "synthetic-dead-leaves"
    with pytest.raises(PackError, match=rf"a\.h5 has the digest .*planned with {first.digest}.* Launch it again"):
        open_located(uri, first.digest)


def test_copy_of_a_corrupt_pack_is_refused_and_deleted(tmp_path, cardiac_pack, cache):
    uri = shared(tmp_path / "shared", cardiac_pack, "a.h5")
    path = tmp_path / "shared" / "a.h5"
    with h5py.File(path, "r+") as file:
        bucket = next(iter(file["images"].values()))
        bucket[0] = ~bucket[0]
    data = path.read_bytes()
    with pytest.raises(PackError, match=rf"{uri} is corrupt: its stored digest") as told:
        open_located(uri)
    assert str(cache) not in str(told.value)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PackError, match=rf"{uri} is not a readable pack"):
        open_located(uri)
    assert copies(cache) == []


def test_missing_pack_is_named(tmp_path, s3, cache):
    for uri in ((tmp_path / "gone.h5").as_uri(), Store(new_bucket(s3)).path_uri("gone.h5")):
        with pytest.raises(PackError, match=r"gone\.h5\S* does not exist"):
            open_located(uri)


def test_pack_used_longest_ago_makes_room(tmp_path, cardiac_pack, cache):
    uris = [shared(tmp_path / "shared", cardiac_pack, f"{name}.h5") for name in "abc"]
    size = cardiac_pack.stat().st_size
    two = PackCache(cache, int(2.5 * size))
    paths = []
    for position, uri in enumerate(uris[:2]):
        paths.append(two.open(uri).path)
        os.utime(paths[-1], (position, position))
    forget()
    two.open(uris[0])  # used again: now the other one is the oldest
    forget()
    third = two.open(uris[2]).path
    assert copies(cache) == sorted([paths[0].name, third.name])


def test_pack_that_is_being_read_is_not_deleted(tmp_path, cardiac_pack, cache):
    uris = [shared(tmp_path / "shared", cardiac_pack, f"{name}.h5") for name in "ab"]
    one = PackCache(cache, int(1.5 * cardiac_pack.stat().st_size))
    held = one.open(uris[0])
    with pytest.raises(PackError, match=r"no room on this node for file://.*b\.h5: it takes .*RAYSWEEP_CACHE"):
        one.open(uris[1])
    assert copies(cache) == [held.path.name]
    assert held.image(0).sum() > 0
    del held
    forget()
    assert one.open(uris[1]).location
    assert len(copies(cache)) == 1


def test_disk_that_fills_up_is_named_and_keeps_nothing_of_the_pack(tmp_path, cardiac_pack, cache, monkeypatch):
    uri = shared(tmp_path / "shared", cardiac_pack, "a.h5")

    def half(self: object, write: object) -> None:
        write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(staging._SharedFile, "copy", half)
    with pytest.raises(PackError, match=rf"no room on this node for {uri}.* Set RAYSWEEP_CACHE to a folder"):
        open_located(uri)
    assert copies(cache) == []
    monkeypatch.undo()
    monkeypatch.setenv("RAYSWEEP_CACHE", str(cache))
    assert open_located(uri).digest


def test_what_a_killed_process_left_half_copied_is_deleted(tmp_path, cardiac_pack, cache):
    left = cache / ".partial-0123.h5"
    left.write_bytes(b"half")
    open_located(shared(tmp_path / "shared", cardiac_pack, "a.h5"))
    assert not left.exists()


@pytest.mark.parametrize("value", ["0", "-3", "much"])
def test_wrong_limit_is_refused(cache, monkeypatch, value):
    monkeypatch.setenv("RAYSWEEP_CACHE_GB", value)
    with pytest.raises(PackError, match=f"RAYSWEEP_CACHE_GB is '{value}'"):
        PackCache()


def test_cache_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("RAYSWEEP_CACHE", raising=False)
    monkeypatch.setattr(staging.tempfile, "gettempdir", lambda: str(tmp_path))
    assert oct(cache_folder().stat().st_mode)[-3:] == "700"
    owner, other = os.getuid(), os.getuid() + 1
    monkeypatch.setattr(staging.os, "getuid", lambda: other)
    (tmp_path / f"raysweep-cache-{other}").mkdir()
    with pytest.raises(PackError, match=f"belongs to user {owner}"):
        cache_folder()
