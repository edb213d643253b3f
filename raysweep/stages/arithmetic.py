"""Which arithmetic is faster on this machine's CPU: measured once, remembered in the node's cache folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median

import torch
from torch import nn

from raysweep.data.staging import cache_folder
from raysweep.identity import content_id

MIN_GAIN = 1.1
"""How many times as fast as float32 bfloat16 must be to be worth its rounding."""
_REPETITIONS = 5
_log = logging.getLogger(__name__)


def cpu_prefers_bfloat16() -> bool:
    """Whether this CPU trains a convolutional network clearly faster in bfloat16 than in float32."""
    return _has_bfloat16() and _remembered_gain(cache_folder() / f"arithmetic-{_machine()}.json") >= MIN_GAIN


def _has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively; elsewhere it is emulated and slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@cache
def _remembered_gain(file: Path) -> float:
    """Return the measured gain; the first process of a machine to have one decides for all."""
    if (known := _read(file)) is not None:
        return known
    gain = measured_gain()
    with suppress(OSError):  # another process was first, or the disk is full: this one measured for itself
        temporary = file.with_name(f".{file.name}-{os.getpid()}")
        temporary.write_text(json.dumps({"bfloat16_gain": gain}), encoding="utf-8")
        try:
            os.link(temporary, file)  # whole, and never in place of another's
        finally:
            temporary.unlink()
    _log.info("bfloat16 trains %.2f times as fast as float32 on this CPU; remembered in %s", gain, file)
    return _read(file) or gain


def measured_gain() -> float:
    """Return how many times as fast as in float32 a small network trains in bfloat16, on one core, in CPU time."""
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        seconds = {dtype: _seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(generator)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _seconds(dtype: torch.dtype) -> float:
    network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3))
    network = network.to(memory_format=torch.channels_last)
    x = torch.randn(8, 32, 40, 40).contiguous(memory_format=torch.channels_last)
    taken = []
    for _ in range(_REPETITIONS):
        begin = time.thread_time()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            loss = network(x).float().square().mean()
        loss.backward()
        taken.append(time.thread_time() - begin)
    return median(taken[1:])


def _read(file: Path) -> float | None:
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["bfloat16_gain"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _machine() -> str:
    """Return a hash of what the gain depends on: the CPU, and the library that computes."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return content_id({"cpu": facts or [platform.processor()], "torch": torch.__version__})[:16]
