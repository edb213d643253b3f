"""On a GPU, no step waits for the device."""

import pytest
import torch

from raysweep.planning import build_plan
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.runtime import prepare_runtime
from raysweep.sweep import _facts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("method", ["simclr", "byol", "barlow-twins"])
def test_pretraining_steps_do_not_wait_for_the_gpu(tiny_study, tiny_store, method):
    study = tiny_study({"grid.source": ["cardiac"], "grid.method": [method]})
    plan = build_plan(study, _facts(study, tiny_store))
    stage = next(stage for stage in plan.stages.values() if stage.kind == "pretrain")
    loop = PretrainLoop(stage, tiny_store, prepare_runtime(0, "auto", 1), 1)
    loop.method.nets.train()
    check(lambda first: loop._step(torch.arange(first, first + 4)))


def test_finetuning_steps_do_not_wait_for_the_gpu(tiny_study, tiny_store):
    study = tiny_study({"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []})
    (stage,) = build_plan(study, _facts(study, tiny_store)).stages.values()
    loop = FinetuneLoop(stage, tiny_store, prepare_runtime(0, "auto", 1), 1)
    loop.tuning.begin_epoch(1)
    check(lambda first: loop._step(torch.arange(4)))


def check(step) -> None:
    """Take a first step, which may allocate and initialise, then one in which waiting is an error."""
    step(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
