"""Packings that are killed with SIGKILL, wherever that happens, and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from raysweep.data import pack_partial, pack_writer
from raysweep.data.pack import Pack
from raysweep.data.slice_facts import store_slices
from raysweep.datasets import _packing, build_pack
from raysweep.errors import PackError
from tests.lookalikes import write_lookalike

SCRIPT = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from raysweep.data import pack_partial
    from raysweep.datasets import _packing, build_pack

    if __name__ == "__main__":
        _packing._TASK_BYTES = 1  # a task for every file
        pack_partial._SECONDS_BETWEEN_COMMITS = 0.0
        build_pack(
            "folder", Path(sys.argv[1]), Path(sys.argv[2]), {"mask_values": {255: 1}}, workers=int(sys.argv[3]),
            progress=lambda done, total: (print(done, flush=True), time.sleep(0.05)),
        )
    """
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "files"
    write_lookalike("folder", folder, subjects=12, size=64)
    return folder


@pytest.fixture(scope="module")
def whole(files) -> bytes:
    return packed(files, files.parent / "whole.h5")


def packed(files: Path, out: Path) -> bytes:
    build_pack("folder", files, out, {"mask_values": {255: 1}}, workers=1)
    return out.read_bytes()


def partial_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def count_stored(monkeypatch) -> list[int]:
    """Note how many slices each task stores from now on."""
    counted: list[int] = []

    def counting(path, slices, *arguments):
        counted.append(len(slices))
        return store_slices(path, slices, *arguments)

    monkeypatch.setattr(_packing, "store_slices", counting)
    return counted


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_packing_continues_and_gives_the_same_bytes(files, whole, tmp_path, monkeypatch, workers):
    out, script = tmp_path / "p.h5", tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(files), str(out), str(workers)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 6:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    assert partial_of(out).exists()
    counted = count_stored(monkeypatch)
    assert packed(files, out) == whole
    assert 0 < sum(counted) <= 24 - 5
    assert sorted(tmp_path.iterdir()) == sorted([out, script])
    Pack.open(out).verify()


class Killed(BaseException):
    """Stands for SIGKILL where a test needs it at one very place: nothing in the package handles it."""


@pytest.mark.parametrize("step", ["_write_index", "_write_attributes", "content_digest", "set_text", "publish"])
def test_packing_killed_while_it_is_completed_keeps_its_pixels(files, whole, tmp_path, monkeypatch, step):
    out = tmp_path / "p.h5"

    def kill(*_):
        raise Killed

    target = {"content_digest": pack_writer, "set_text": pack_writer, "publish": pack_partial.PartialPack}
    with monkeypatch.context() as patched:
        patched.setattr(target.get(step, pack_writer.PackWriter), step, kill)
        with pytest.raises(Killed):
            packed(files, out)
    assert not out.exists()
    if step in ("_write_index", "_write_attributes", "set_text"):
        # HDF5 was at work: its structures may be torn.
        content = bytearray(partial_of(out).read_bytes())
        content[:64] = bytes(64)
        partial_of(out).write_bytes(content)
    counted = count_stored(monkeypatch)
    assert packed(files, out) == whole
    assert counted == []
    assert list(tmp_path.iterdir()) == [out]


def test_changed_file_starts_anew(files, tmp_path, monkeypatch):
    copy, out = tmp_path / "copy", tmp_path / "p.h5"
    write_lookalike("folder", copy, subjects=12, size=64)
    with monkeypatch.context() as patched:
        patched.setattr(pack_writer, "content_digest", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            packed(copy, out)
    path = next((copy / "images").iterdir())
    os.utime(path, ns=(1, 1))
    counted = count_stored(monkeypatch)
    packed(copy, out)
    assert sum(counted) == 24


def test_second_writer_of_one_pack_is_refused(files, tmp_path):
    out = tmp_path / "p.h5"
    writer = pack_partial.PartialPack(out, Layout(), "key", np.dtype("u1"), 1)
    with writer, pytest.raises(PackError, match=r"another process is writing .*p.h5"):
        packed(files, out)


class Layout:
    def allocate(self, path: Path) -> None:
        path.touch()


def test_ordinary_error_leaves_nothing_behind(files, tmp_path):
    with pytest.raises(PackError, match="labels 0, 255"):
        build_pack("folder", files, tmp_path / "p.h5", workers=1)
    assert list(tmp_path.iterdir()) == []
