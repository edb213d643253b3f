"""How long a mixed plan takes, against the shortest time it could take."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.measurement import Measurement
from tests.benchmarks.ray_cluster import NUM_SLOTS, ray_cluster, run_plan, temporary_store
from tests.fake_stages import Event, Fake, events, fake_plan

DESCRIPTION = "Makespan of a mixed plan of sleeping stages on two slots, against its lower bound."


def run(quick: bool = False) -> Measurement:
    """Run chains of pretrainings with snapshots, and finetunings that start from them."""
    fakes = mixed_plan(num_chains=1 if quick else 3, epoch_s=0.1 if quick else 0.4)
    work_s = sum(fake.epochs * fake.epoch_s for fake in fakes)
    path_s = critical_path_s(fakes)
    bound_s = max(path_s, work_s / NUM_SLOTS)
    waiting_s = critical_path_s(fakes, from_the_end=True)
    rows = []
    with ray_cluster():
        for repetition in range(1 if quick else 3):
            with temporary_store() as store:
                run_plan(fake_plan(fakes), store)
                log = events(store)
            makespan_s = log[-1].time_s - log[0].time_s
            rows.append(
                {
                    "run": repetition + 1,
                    "stages": len(fakes),
                    "work / slots s": work_s / NUM_SLOTS,
                    "critical path s": path_s,
                    "makespan s": makespan_s,
                    "makespan / bound": makespan_s / bound_s,
                    "second worker up after s": _second_worker_s(log),
                    "workers": len({event.pid for event in log}),
                }
            )
    late_s = max(float(row["second worker up after s"]) for row in rows)
    ratios = sorted(float(row["makespan / bound"]) for row in rows)
    return Measurement(
        rows,
        f"From the first stage's begin to the last one's end, {len(fakes)} stages take "
        f"{ratios[len(ratios) // 2]:.2f} times (median; {ratios[0]:.2f} to {ratios[-1]:.2f}) the lower bound of "
        f"{bound_s:.1f} s, the larger of the critical path and the work divided by the slots. The second worker "
        f"came up to {late_s:.1f} s after the first. If dependents waited for the end of their parent instead of "
        f"its snapshot, the critical path would be {waiting_s:.1f} s instead of {path_s:.1f} s.",
        {
            "plan": "chains of two pretrainings, each with snapshots after 1/4, 1/2 and all of its epochs, and two "
            "finetunings from every snapshot",
            "slots": NUM_SLOTS,
            "clock": "wall time; stages sleep, so that other load on the machine counts only in what the engine does",
        },
    )


def mixed_plan(num_chains: int, epoch_s: float) -> list[Fake]:
    """Return chains of pretrainings and the finetunings that depend on them."""
    fakes = []
    for chain in range(num_chains):
        first, second = f"chain {chain}: first", f"chain {chain}: second"
        fakes.append(Fake(first, epochs=16, epoch_s=epoch_s / 2))
        fakes.append(Fake(second, parent=(first, 8), epochs=16, epoch_s=epoch_s / 2))
        for pretraining in (first, second):
            for epoch in (4, 8, 16):
                fakes += [
                    Fake(f"{pretraining}, {epoch}, seed {seed}", parent=(pretraining, epoch), epochs=3, epoch_s=epoch_s)
                    for seed in range(2)
                ]
    return fakes


def critical_path_s(fakes: Sequence[Fake], from_the_end: bool = False) -> float:
    """Return the seconds of the longest path; a dependent starts at its snapshot, or at its parent's end."""
    by_name = {fake.name: fake for fake in fakes}
    starts: dict[str, float] = {}
    for fake in fakes:
        starts[fake.name] = 0.0
        if fake.parent is not None:
            parent = by_name[fake.parent[0]]
            epoch = parent.epochs if from_the_end else fake.parent[1]
            starts[fake.name] = starts[parent.name] + epoch * parent.epoch_s
    return max(starts[fake.name] + fake.epochs * fake.epoch_s for fake in fakes)


def _second_worker_s(log: Sequence[Event]) -> float:
    """Return the seconds from the first event to the first one of another process."""
    others = [event.time_s for event in log if event.pid != log[0].pid]
    return min(others, default=log[-1].time_s) - log[0].time_s
