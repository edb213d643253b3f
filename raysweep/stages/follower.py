"""``python -m raysweep.stages.follower FOLDER RANK``: a rank that rank 0 has started, until its job is done."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from raysweep.stages.failure import failure_of
from raysweep.stages.ranks import TIMEOUT, connect, device_of


def follow(folder: Path, rank: int) -> int:
    """Do the job that rank 0 has left in a folder; leave there what went wrong, and return the exit code."""
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    try:
        order = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        device = device_of(rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        module, _, name = order["function"].partition(":")
        function: Callable[..., None] = getattr(import_module(module), name)
        (folder / f"ready-{rank}").touch()
        function(connect(folder, rank, order["size"], device, TIMEOUT), **order["job"])
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is what the stage reports
        written = folder / f"failure-{rank}.partial"
        written.write_text(json.dumps(asdict(failure_of(error))), encoding="utf-8")
        written.rename(folder / f"failure-{rank}")
        return 1
    return 0


def _end_with_rank_0() -> None:
    """End this process when rank 0 closes the pipe between them, or is gone."""
    sys.stdin.buffer.read()
    os._exit(2)


if __name__ == "__main__":
    code = follow(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without waiting for threads of the process group, whose peers may be gone
