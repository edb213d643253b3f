"""What earlier stages took and scored, from the tables of the store."""

from __future__ import annotations

from raysweep.planning.cost import Measured, Rates
from raysweep.planning.model import Kind
from raysweep.results.query import query_store
from raysweep.store import Store
from raysweep.study import Resources

_SELECT = """
    WITH stages AS (
        SELECT *, coalesce(try_cast(split_part(device, ' x ', 1) AS INTEGER), 1) AS ranks FROM stages
    )
    SELECT shape, NOT ends_with(device, 'cpu') AS on_gpu, sum(wall_s * ranks) / sum(epochs) AS epoch_s,
           max(gpu_peak_bytes) AS gpu_peak_bytes, min(gpu_total_bytes) AS gpu_total_bytes,
           coalesce(stddev_samp(wall_s * ranks / epochs) / avg(wall_s * ranks / epochs), 0) AS spread
    FROM stages WHERE status = 'done' AND shape IS NOT NULL AND epochs > 0 AND wall_s IS NOT NULL AND device IS NOT NULL
    GROUP BY ALL
"""


def measured_rates(store: Store, resources: Resources) -> Rates:
    """Return the seconds per epoch of every shape of stage that the store has, on the kind of device asked for now."""
    on_gpu: dict[Kind, bool] = {"pretrain": resources.pretrain.asks_gpu, "finetune": resources.finetune.asks_gpu}
    rows = query_store(store, _SELECT).to_pylist()
    measured = {
        row["shape"]: Measured(row["epoch_s"], row["gpu_peak_bytes"], row["gpu_total_bytes"], row["spread"])
        for row in rows
        if row["on_gpu"] in on_gpu.values()
    }
    return Rates(measured, on_gpu, {"pretrain": resources.pretrain.num_ranks})


def test_scores(store: Store) -> dict[str, float]:
    """Return the test score of every finished finetune stage of the store."""
    rows = query_store(store, "SELECT stage, test_score FROM stages WHERE status = 'done' AND test_score IS NOT NULL")
    return {row["stage"]: row["test_score"] for row in rows.to_pylist()}
