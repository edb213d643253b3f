"""Packing many small files: time, peak memory of all processes together, and resumption."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from raysweep.data.pack import Pack
from raysweep.datasets import build_pack
from raysweep.datasets._pool import MEMORY_BYTES
from tests.benchmarks.measurement import Measurement
from tests.lookalikes import write_lookalike

DESCRIPTION = "100,000 image files and whole cines into packs: CPU time and peak memory of all processes."

_SAMPLE_S = 0.05


def run(quick: bool = False) -> Measurement:
    """Pack both sets with one process and with one a core."""
    num_files, subjects, frames = (400, 2, 4) if quick else (100_000, 6, 25)
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        _write_files(base / "files", num_files)
        settings = {"subjects": subjects, "slices": 10, "frames": frames, "size": 64 if quick else 256}
        write_lookalike("acdc", base / "cines", **settings)
        digests = set()
        for name, source, options in (
            ("folder", base / "files", {"mask_values": {255: 1}}),
            ("acdc", base / "cines", {}),
        ):
            for workers in sorted({1, cores}):
                with _watched() as watch:
                    build_pack(name, source, base / "out.h5", options, workers=workers)
                pack = Pack.open(base / "out.h5")
                digests.add((name, pack.digest))
                rows.append(
                    {
                        "data": f"{num_files} PNG files with masks" if name == "folder" else f"{subjects} cines",
                        "processes": workers,
                        "slices": len(pack),
                        "pack MiB": pack.path.stat().st_size / 2**20,
                        "CPU s, all processes": sum(watch.cpu_s.values()),
                        "CPU s, this one": watch.cpu_s.get(os.getpid(), 0.0),
                        "wall s": watch.seconds,
                        "peak MiB, all processes": watch.peak_bytes / 2**20,
                    }
                )
        assert len(digests) == 2, "the number of processes changed a pack"
    peak = max(row["peak MiB, all processes"] for row in rows)
    within = "below" if peak < MEMORY_BYTES / 2**20 else "ABOVE"
    return Measurement(
        rows,
        f"All processes together took at most {peak:.0f} MiB, {within} the {MEMORY_BYTES >> 20} MiB that packing "
        "allows itself, for packs of any size here. The number of processes did not change a digest.",
        {
            "memory": f"proportional set size (pages shared by n processes count 1/n), every {_SAMPLE_S} s, of this "
            "process and all below it, with this benchmark's own interpreter",
            "files": "64 x 64 grey PNG with a mask each, in two folders" if not quick else "few",
            "cines": f"(256, 264) x 10 slices x {frames} frames of 16 bits, gzipped NIfTI, a file a patient",
            "clock": "CPU time is that of the processes alone; wall time that of a machine which others used too",
        },
    )


@dataclass
class _Watch:
    seconds: float = 0.0
    peak_bytes: int = 0
    cpu_s: dict[int, float] = field(default_factory=dict)


@contextmanager
def _watched() -> Iterator[_Watch]:
    """Measure the time of a block, and the peak memory of this process and all its descendants."""
    watch, ended = _Watch(), threading.Event()
    before = {process: _cpu_s(process) for process in _family(os.getpid())}

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            family = _family(os.getpid())
            watch.peak_bytes = max(watch.peak_bytes, sum(map(_proportional_bytes, family)))
            for process in family:
                taken = _cpu_s(process) - before.get(process, 0.0)
                watch.cpu_s[process] = max(watch.cpu_s.get(process, 0.0), taken)

    thread = threading.Thread(target=sample)
    thread.start()
    begin = time.perf_counter()
    try:
        yield watch
    finally:
        watch.seconds = time.perf_counter() - begin
        ended.set()
        thread.join()


def _family(root: int) -> list[int]:
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = [root]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _cpu_s(process: int) -> float:
    """Return the CPU time that a process has taken, 0 if it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _proportional_bytes(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _write_files(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    noise = rng.integers(0, 200, (64 + 997, 64), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:50] = 255
    for count in range(number):
        image = noise[count % 997 : count % 997 + 64].copy()
        image[0, :4] = np.frombuffer(count.to_bytes(4, "little"), np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{count:06d}.png", compress_level=1)
        if count < 50:
            Image.fromarray(mask).save(folder / "masks" / f"{count:06d}.png")
        else:
            os.link(folder / "masks" / f"{count % 50:06d}.png", folder / "masks" / f"{count:06d}.png")
