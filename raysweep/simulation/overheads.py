"""What a stage costs beside its training, in seconds, with where each number was measured."""

from __future__ import annotations

from dataclasses import dataclass

from raysweep.engine.dispatch import MAX_STARTING, WORKER_START_S


@dataclass(frozen=True)
class Overheads:
    """Costs of the engine and of a stage's start; tests/benchmarks/results holds the measurements named here."""

    process_start_s: float = 4.0
    """From asking for a worker until its process takes a stage (engine_overhead: a plain trial's start)."""
    worker_start_s: float = WORKER_START_S
    """The same until its libraries are imported as well, which the first stage of a process waits for."""
    stage_start_s: float = 0.05
    """Between two stages of a warm worker (engine_overhead: two slots, warm)."""
    stage_setup_s: float = 1.0
    """Building the network, reading weights and opening the pack, which measured rates do not hold (stage_setup)."""
    driver_s: float = 0.012
    """CPU time of the driver for each stage; it hands out one stage at a time (engine_overhead)."""
    starting_at_once: int = MAX_STARTING
    """Workers whose processes may start at the same time."""
    loss_noticed_s: float = 15.0
    """From the loss of a node until its stages are handed out again: Ray's health checks, 5 of them 3 s apart."""


MEASURED = Overheads()

NO_OVERHEADS = Overheads(0.0, 0.0, 0.0, 0.0, 0.0, 10**9, 0.0)
"""Training alone: what hand computations and lower bounds assume."""
