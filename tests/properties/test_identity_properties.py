"""What changes the identity of a stage, and what does not."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.identity import canonical_json, content_id
from raysweep.planning import build_plan
from tests.studies import FAKE_FACTS, fake_study

PLAN = build_plan(fake_study({"grid.source": ["random", "cardiac", "leaves-cardiac"]}), FAKE_FACTS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for position, inner in enumerate(value):
            yield from leaves(inner, (*path, position))
    else:
        yield path, value


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x"


@pytest.mark.parametrize("stage", PLAN.stages.values(), ids=lambda stage: stage.name)
def test_changing_any_leaf_of_a_configuration_changes_the_id(stage):
    assert content_id(stage.config) == stage.id
    seen = {stage.id}
    for path, value in leaves(stage.config):
        changed = copy.deepcopy(stage.config)
        node = changed
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = other(value)
        seen.add(content_id(changed))
    assert len(seen) == 1 + len(list(leaves(stage.config)))


MATTERS = {
    "backbones.small.encoder": "resnet18",
    "backbones.small.options": {"bn_eps": 0.001},
    "pretraining.image_size": 64,
    "pretraining.batch_size": 8,
    "pretraining.seed": 1,
    "pretraining.precision": "bfloat16",
    "pretraining.methods": {"simclr": {"temperature": 0.2}},
    "tasks.heart.loss": "dice",
    "tasks.heart.metric": "iou",
    "tasks.heart.drawing": "anew",
    "tasks.heart.stratify": False,
    "tasks.heart.training.best_by": "loss",
    "tasks.heart.training.ema": 0.99,
    "tasks.heart.training.early_stopping": {"patience": 3},
    "tasks.heart.annotate_by": "volume",
    "tasks.heart.training.epochs": 3,
    "tasks.heart.training.steps": "natural",
    "tasks.heart.training.augmentation": {"flip_p": 0.1},
    "tasks.heart.training.optimisation": {"lr": 0.1},
    "tasks.heart.training.evaluate_every": 2,
    "grid.tuning": ["frozen"],
    "grid.seed": [1],
    "grid.annotations": [5],
    "grid.method": ["byol"],
    "grid.pretrain_epochs": [3],
}


def answer(changes=None, facts=FAKE_FACTS):
    base = {"grid.source": ["cardiac"], "grid.pretrain_epochs": [2]}
    return build_plan(fake_study({**base, **(changes or {})}), facts).cells[0].stage


@pytest.mark.parametrize("key", MATTERS)
def test_a_setting_that_matters_changes_the_identity_of_the_answer(key):
    assert answer({key: MATTERS[key]}) != answer()


def test_another_pack_content_changes_the_identity():
    for name in ("cardiac",):
        facts = {**FAKE_FACTS, name: replace(FAKE_FACTS[name], digest="sha256:other")}
        assert answer(facts=facts) != answer()
    unused = {**FAKE_FACTS, "leaves": replace(FAKE_FACTS["leaves"], digest="sha256:other")}
    assert answer(facts=unused) == answer()


@pytest.mark.parametrize(
    "changes",
    [
        {"study": "other"},
        {"description": "other"},
        {"resources": {"finetune": {"gpus": 0.5}, "pretrain": {"cpus": 4}, "attempts": 3}},
        {"packs.cardiac.file": "/elsewhere.h5"},
        {"backbones": {"renamed": {"encoder": "test_resnet"}}},
        {"sources.renamed": ["random", {"pretrain": {"pack": "cardiac"}}], "grid.source": ["renamed"]},
        {"grid.seed": [0, 1]},
        {"grid.annotations": [4, 8]},
    ],
    ids=str,
)
def test_names_paths_resources_and_other_cells_leave_the_identity(changes):
    assert answer(changes) == answer()


def test_a_grid_that_grows_keeps_the_identities_it_had():
    grown = {"grid.source": ["cardiac", "leaves-cardiac"], "grid.pretrain_epochs": [1, 2], "grid.seed": [0, 1]}
    assert answer() in build_plan(fake_study(grown), FAKE_FACTS).stages


def test_paths_of_packs_are_no_part_of_the_identity():
    moved = {name: replace(facts, path="/moved") for name, facts in FAKE_FACTS.items()}
    assert answer(facts=moved) == answer()


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_grid_changes_neither_stages_nor_cells(rng: random.Random):
    axes = {
        "source": ["random", "cardiac", "leaves-cardiac"],
        "method": ["simclr", "byol"],
        "pretrain_epochs": [0, 1, 2],
        "annotations": [4, "50%", "all"],
        "seed": [0, 1],
    }

    def shuffled():
        mixed = {f"grid.{name}": rng.sample(values, len(values)) for name, values in axes.items()}
        return build_plan(fake_study(mixed), FAKE_FACTS)

    one, two = shuffled(), shuffled()
    assert {s.id: (s.snapshots, s.parent) for s in one.stages.values()} == {
        s.id: (s.snapshots, s.parent) for s in two.stages.values()
    }
    assert {c.name: c.stage for c in one.cells} == {c.name: c.stage for c in two.cells}


@given(JSON)
def test_canonical_json_says_the_value_and_nothing_of_its_order(value):
    def turned(inner):
        if isinstance(inner, dict):
            return {key: turned(inner[key]) for key in reversed(list(inner))}
        return [turned(item) for item in inner] if isinstance(inner, list) else inner

    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(turned(value)) == text
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    "value", [{1}, b"x", object(), {1: 2}, {"a": [float("nan")]}, float("inf"), {"a": {"b": {2: 1}}}]
)
def test_values_without_a_stable_identity_are_refused(value):
    with pytest.raises((TypeError, ValueError), match="value"):
        canonical_json(value)
