from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.engine.trackers import TRACKERS
from raysweep.errors import RaysweepError
from raysweep.planning import Stage

CONFIG = {"task": {"kind": "segmentation"}, "backbone": {"encoder": "resnet18"}, "pack": "sha256:0", "seed": 3}
STAGE = Stage("0123456789abcdef", "finetune", "heart/random", CONFIG, None, 2, {})


def follow(tracker) -> None:
    tracker.started(STAGE)
    tracker.epoch(STAGE, 1, {"train/loss": 0.5, "val/dice": 0.25})
    tracker.epoch(STAGE, 2, {"train/loss": 0.25, "val/dice": 0.75})
    tracker.ended(STAGE, "done")
    tracker.close()


def test_tensorboard_gets_a_run_per_stage_and_a_point_per_epoch(tmp_path: Path):
    pytest.importorskip("tensorboardX")
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    follow(TRACKERS["tensorboard"]("study", str(tmp_path)))
    run = reading.EventAccumulator(str(tmp_path / "study" / "heart" / "random" / "01234567")).Reload()
    assert [(event.step, event.value) for event in run.Scalars("val/dice")] == [(1, 0.25), (2, 0.75)]


@pytest.mark.filterwarnings("ignore")  # its own
def test_mlflow_gets_a_finished_run_with_parameters(tmp_path: Path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    tracker = TRACKERS["mlflow"]("study", str(tmp_path))
    follow(tracker)
    client = mlflow.tracking.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["encoder"] == "resnet18"
    assert [point.value for point in client.get_metric_history(run.info.run_id, "train/loss")] == [0.5, 0.25]


@pytest.mark.filterwarnings("ignore")  # its own
def test_wandb_gets_a_run_per_stage_offline(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    follow(TRACKERS["wandb"]("study", str(tmp_path)))
    assert list(tmp_path.rglob("run-0123456789abcdef.wandb"))


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_tracker_whose_package_is_missing_says_how_to_install_it(name, module, tmp_path, monkeypatch):
    import sys

    for loaded in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RaysweepError, match=rf"pip install 'raysweep\[{name}\]'"):
        TRACKERS[name]("study", str(tmp_path))
