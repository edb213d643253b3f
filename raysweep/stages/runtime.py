"""Device, arithmetic, threads and random state of a stage, set anew for each, so that none influences another."""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy
import timm
import torch

from raysweep._version import __version__
from raysweep.errors import StageError
from raysweep.settings import Precision
from raysweep.stages.arithmetic import cpu_prefers_bfloat16
from raysweep.stages.memory import keep_freed_memory

_DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage computes."""

    device: torch.device
    precision: str
    threads: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes."""
        dtype = _DTYPES[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def memory_bytes(self) -> int:
        """Return the GPU memory that the stage may hold; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0
        total = torch.cuda.get_device_properties(self.device).total_memory
        return int(total * torch.cuda.get_per_process_memory_fraction(self.device))

    def gpu_memory(self) -> dict[str, int]:
        """Return the most GPU memory held so far and what the GPU has, in bytes; nothing on a CPU."""
        if self.device.type != "cuda":
            return {}
        return {
            "gpu_peak_bytes": torch.cuda.max_memory_reserved(self.device),
            "gpu_total_bytes": torch.cuda.get_device_properties(self.device).total_memory,
        }

    def facts(self) -> dict[str, Any]:
        """Return the columns of the stages table that say where it ran."""
        versions = {
            "raysweep": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        }
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "device": name,
            "precision": self.precision,
            "threads": self.threads,
            "host": socket.gethostname(),
            "versions": json.dumps(versions, sort_keys=True),
        }


def prepare_runtime(seed: int, precision: Precision, threads: int, gpu_share: float = 1.0) -> Runtime:
    """Put this process into the state of a new one, seeded, and choose device and arithmetic.

    What an earlier stage of the process may have changed is set anew: generators, default type and device, gradient
    and autocast modes, threads, deterministic algorithms, the GPU's cache. One that shares a GPU may hold no more of
    its memory than its share, so that it fails alone.

    Raises:
        StageError: if the device cannot compute in the precision.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    gc.collect()  # what is left of an earlier stage goes before the memory is measured
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(min(gpu_share, 1.0))
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    for kind in {"cpu", device.type}:
        torch.set_autocast_enabled(kind, False)
    torch.clear_autocast_cache()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Deterministic mode also fills whatever is allocated, which took 6 to 11 % of a step; nothing reads it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    _seed_generators(seed)
    return Runtime(device, _resolve(precision, device), threads)


def seed_afresh() -> int:
    """Seed every generator with a number from the operating system, and return it."""
    seed = int.from_bytes(os.urandom(4))
    _seed_generators(seed)
    return seed


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _resolve(precision: Precision, device: torch.device) -> str:
    if precision == "auto":
        better = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_prefers_bfloat16()
        return "bfloat16" if better else "float32"
    if precision in ("float16", "tf32") and device.type == "cpu":
        raise StageError(f"precision {precision} needs a GPU; on a CPU use auto, bfloat16 or float32")
    return precision
