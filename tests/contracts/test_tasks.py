"""What every task keeps to, by name: a new file under raysweep/tasks is tested here at once."""

from __future__ import annotations

import pytest
import torch

from raysweep import registry
from raysweep.data.augment import apply, keep_whole
from raysweep.data.pack import Pack, open_pack
from raysweep.data.reader import SliceReader
from raysweep.data.slices import shapes_of
from raysweep.errors import PackError
from raysweep.results.schemas import TABLES
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks import Task, TaskSettings

NAMES = registry.names("tasks")
SMALL = {"decoder_channels": (16, 8), "training": {"image_size": 32}}


@pytest.fixture(params=NAMES)
def kind(request) -> type[Task]:
    return registry.load("tasks", request.param).TASK


@pytest.fixture
def settings(kind) -> TaskSettings:
    known = {key: value for key, value in SMALL.items() if key in kind.Settings.model_fields}
    return kind.Settings(pack="p", **known)


@pytest.fixture
def pack(kind, settings, cardiac_pack, label_pack) -> Pack:
    """The first of the tests' packs that the task takes."""
    for candidate in map(open_pack, (cardiac_pack, label_pack)):
        try:
            kind.check_pack(candidate, settings)
        except PackError:
            continue
        return candidate
    raise AssertionError(f"no pack of the tests suits {kind.__name__}: add one to this list")


@pytest.fixture
def task(kind, settings, pack) -> Task:
    torch.manual_seed(0)
    return kind(settings, build_encoder(Backbone(encoder="test_resnet")), pack)


def drawn(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as the training loop makes it."""
    rows = task.pack.select(split="train", annotated=True)[:4]
    reader, whole = SliceReader(task.pack), keep_whole(shapes_of(task.pack, rows))
    labels = task.labels_of(rows)
    if labels is not None:
        return apply(reader.slices(rows), whole, 32), labels
    return apply(reader.slices(rows), whole, 32, masks=reader.masks(rows))


def test_settings_are_documented_and_survive_json(kind):
    assert issubclass(kind.Settings, TaskSettings)
    settings = kind.Settings(pack="p")
    assert kind.Settings.model_validate_json(settings.model_dump_json()) == settings
    assert all(field.description for field in kind.Settings.model_fields.values() if field.annotation)
    assert isinstance(kind.recipe, int)
    assert all(registry.describe("tasks").values())


def test_settings_keep_the_tasks_own_defaults_beside_a_changed_one(kind):
    changed = kind.Settings(pack="p", training={"epochs": 3}).training
    assert changed == kind.Settings(pack="p").training.model_copy(update={"epochs": 3})


def test_the_pretrained_encoder_is_inside_and_gradients_reach_it(task):
    images, target = drawn(task)
    loss = task.loss(task.network(images), target)
    assert loss.shape == ()
    loss.backward()
    inside = list(task.encoder_module().parameters())
    assert inside
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in inside)
    assert {id(p) for p in inside} < {id(p) for p in task.network.parameters()}


def test_the_encoders_weights_arrive_unchanged(kind, settings, pack):
    encoder = build_encoder(Backbone(encoder="test_resnet"))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.rand_like(parameter))
    expected = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    inside = kind(settings, encoder, pack).encoder_module().state_dict()
    assert inside
    for key, value in inside.items():
        assert torch.equal(value, expected[key.removeprefix("model.")]), key


def test_half_precision_output_gives_a_float32_loss(task):
    images, target = drawn(task)
    assert task.loss(task.network(images).bfloat16(), target).dtype is torch.float32


def test_the_output_has_a_channel_for_every_name(task):
    assert task.network.eval()(drawn(task)[0]).shape[1] == len(task.output_names)


def test_evaluation_gives_a_score_between_0_and_1_and_rows_of_the_cases_table(task):
    task.network.eval()
    rows = task.pack.select(split="test", annotated=True)
    with torch.inference_mode():
        evaluation = task.evaluate(rows, task.network, "test", num_examples=2)
    assert 0 <= evaluation.score <= 1
    columns = set(TABLES["cases"].schema().names) - {"stage"}
    assert evaluation.cases
    assert all(set(case) <= columns for case in evaluation.cases)
    assert {case["split"] for case in evaluation.cases} == {"test"}
    assert {case["unit"] for case in evaluation.cases} <= {"slice", "volume", "subject"}
    assert any(case["scored"] for case in evaluation.cases)
    assert len(evaluation.examples) <= 2


def test_evaluation_does_not_depend_on_the_order_of_rows(task):
    task.network.eval()
    rows = task.pack.select(split="test", annotated=True)
    with torch.inference_mode():
        scores = [task.evaluate(order, task.network, "test").score for order in (rows, rows[::-1].copy())]
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)
