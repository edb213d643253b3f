"""Published weights in a stage's identity: by content, however the study names them."""

from __future__ import annotations

import pytest
import torch

from raysweep import zoo
from raysweep.errors import WeightsError
from raysweep.identity import file_digest
from raysweep.planning import build_plan
from raysweep.sweep import run
from tests.studies import FAKE_FACTS, fake_study

RESNET50 = {"backbones.small.encoder": "resnet50", "grid.method": [], "grid.pretrain_epochs": [], "grid.source": ["w"]}


def starts(weights, digests=None) -> list[dict]:
    plan = build_plan(fake_study({**RESNET50, "sources.w": {"weights": weights}}), FAKE_FACTS, digests)
    return [(stage.id, stage.config["start"], stage.inputs) for stage in plan.stages.values()]


def test_a_name_of_the_zoo_stands_for_content_prefix_and_input(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    digest = file_digest(tmp_path / "w.pth")
    ((by_name, start, inputs),) = starts("simclr-v1", {"simclr-v1": digest})
    assert start == {"weights": digest, "normalisation": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}
    assert inputs["zoo"] == "simclr-v1"
    by_file = {"file": str(tmp_path / "w.pth"), "normalisation": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    assert starts(by_file)[0][0] == by_name
    assert starts({**by_file, "prefix": "module"})[0][0] != by_name


def test_weights_that_are_not_there_yet_can_be_planned_by_name():
    ((unknown, start, _),) = starts("moco-v2")
    assert start["weights"] == "zoo:moco-v2"
    assert start["prefix"] == "module.encoder_q"
    assert starts("moco-v2", {"moco-v2": "sha256:1"})[0][0] != unknown


def test_the_zoos_name_and_timms_name_of_the_same_weights_are_one_stage():
    assert starts("imagenet") == starts("resnet50.a1_in1k")
    assert zoo.find("imagenet").timm == "resnet50.a1_in1k"


def test_a_study_may_override_the_input_by_name():
    own = {"zoo": "moco-v2", "normalisation": {"mean": 0.3, "std": 0.4}}
    assert starts(own)[0][1]["normalisation"] == {"mean": 0.3, "std": 0.4}


def test_weights_that_a_person_must_get_end_the_launch_before_anything_runs(tiny_study, tiny_store):
    study = tiny_study({**RESNET50, "sources.w": {"weights": "insdis"}})
    with pytest.raises(WeightsError, match="weights import FILE --as insdis"):
        run(study, store=tiny_store, executor="inline")
    assert tiny_store.ledger() == {}
