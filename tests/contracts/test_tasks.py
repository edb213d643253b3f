"""What every task keeps to, by name: a new file under raysweep/tasks is tested here at once."""

from __future__ import annotations

import pytest
import torch

from raysweep import registry
from raysweep.data.pack import open_pack
from raysweep.results.schemas import TABLES
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks import Task, TaskSettings

NAMES = registry.names("tasks")


@pytest.fixture(params=NAMES)
def kind(request) -> type[Task]:
    return registry.load("tasks", request.param).TASK


@pytest.fixture
def task(kind, cardiac_pack) -> Task:
    torch.manual_seed(0)
    settings = kind.Settings(
        pack="cardiac", **({"decoder_channels": (16, 8)} if "decoder_channels" in kind.Settings.model_fields else {})
    )
    return kind(settings, build_encoder(Backbone(encoder="test_resnet")), open_pack(cardiac_pack))


def test_settings_are_documented_and_survive_json(kind):
    assert issubclass(kind.Settings, TaskSettings)
    settings = kind.Settings(pack="p")
    assert kind.Settings.model_validate_json(settings.model_dump_json()) == settings
    assert all(field.description for field in kind.Settings.model_fields.values() if field.annotation)
    assert isinstance(kind.recipe, int)
    assert all(registry.describe("tasks").values())


def test_the_pretrained_encoder_is_inside_and_gradients_reach_it(task):
    pack = task.pack
    rows = pack.select(split="train", annotated=True)[:1]
    images = torch.randn(2, 1, 32, 32)
    target = torch.zeros(2, 32, 32, dtype=torch.int64)
    target[:, :16] = 1
    task.loss(task.network(images), target).backward()
    inside = list(task.encoder_module().parameters())
    assert inside
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in inside)
    assert len(rows)


def test_evaluation_gives_a_score_between_0_and_1_and_rows_of_the_cases_table(task):
    task.check_pack(task.pack)
    task.network.eval()
    rows = task.pack.select(split="test", annotated=True)
    with torch.inference_mode():
        evaluation = task.evaluate(rows, task.network, "test", num_examples=2)
    assert 0 <= evaluation.score <= 1
    columns = set(TABLES["cases"].schema().names) - {"stage"}
    assert evaluation.cases
    assert all(set(case) <= columns for case in evaluation.cases)
    assert {case["split"] for case in evaluation.cases} == {"test"}
    assert len(evaluation.examples) <= 2


def test_evaluation_does_not_depend_on_the_order_of_rows(task):
    task.network.eval()
    rows = task.pack.select(split="test", annotated=True)
    with torch.inference_mode():
        scores = [task.evaluate(order, task.network, "test").score for order in (rows, rows[::-1].copy())]
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)
