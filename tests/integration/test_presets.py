"""Every preset: as large as its paper says, as dear as its header says, and run from end to end at toy scale."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest

from raysweep import zoo
from raysweep.planning import build_plan, summarise
from raysweep.planning.cost import Rates, estimate
from raysweep.results.read import study_tables
from raysweep.store import Store
from raysweep.study.load import load_study
from raysweep.study.protocol import protocol_line
from raysweep.sweep import run
from tests.presets import FOLDER, NAMES, TINY, VIT_OPTIONS, stand_in, store_stand_in, toy_pack, true_facts

CELLS = {
    "kalapos2022_data_efficiency": 10 * 6 * 10 + 10 * 1 * 10,  # its 600 trials and the random arm
    "kalapos2022_pretraining_epochs": 24,
    "kalapos2022_convergence": 7 * 10,
    "taher2021_ssl_imagenet": (14 + 1) * 7 * 10,
    "taher2021_inat": (3 + 1) * 7 * 10,
    "taher2021_domain_adaptive": 6 * 5 * 10,
    "taher2021_label_fractions": 10 * 5 * 3 * 10,
    "four_axes": (2 + 2 * 6 * 4) * 8 * 5,
    "modern_2026": (2 + 4 + 2 * 3) * 3 * 3 * 4,
    "template": 4 * 3 * 3,
}
PAPERS = [name for name in NAMES if name.startswith(("kalapos", "taher"))]


@cache
def plan_of(name, overrides=()):
    study = load_study(FOLDER / f"{name}.yaml", overrides)
    return build_plan(study, true_facts(study.packs))


def header_of(name):
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("\nstudy: ")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


def test_every_preset_is_known():
    assert set(NAMES) == set(CELLS)


@pytest.mark.parametrize("name", NAMES)
def test_preset_has_the_cells_of_its_table_and_costs_what_its_header_says(name):
    plan = plan_of(name)
    assert len(plan.cells) == CELLS[name]
    wanted = plan.study.resources
    rates = Rates({}, {"pretrain": wanted.pretrain.asks_gpu, "finetune": wanted.finetune.asks_gpu})
    found = estimate(plan, {}, rates)
    said = re.search(r"Cost: (?:about|at most) ([\d,]+) (\S+)", header_of(name))
    assert said, "the header names its cost"
    hours, unit = float(said[1].replace(",", "")), said[2]
    assert unit == found.unit
    assert hours == pytest.approx(found.whole.total, rel=0.06), f"{found.whole.total:.0f}"


@pytest.mark.parametrize("name", NAMES)
def test_header_says_what_to_download_and_names_every_published_weight(name):
    header = header_of(name)
    study = plan_of(name).study
    for part in ("Reproduces", "Cost: ", f"raysweep run search_spaces/{name}.yaml"):
        assert part in header
    for pack in study.packs.values():
        assert pack.dataset or f"--out packs/{pack.file.rsplit('/', 1)[1]}" in header
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    fetched = {word for names in re.findall(r"^#   raysweep weights fetch (.+)$", text, re.M) for word in names.split()}
    by_hand = {w.weights.zoo for s in study.grid.source for w in study.sources[s][:1] if w.weights} - {None} - fetched
    assert not [name for name in fetched & set(zoo.names()) if not zoo.find(name).is_downloadable]
    assert not [name for name in by_hand if zoo.find(name).is_downloadable]
    assert all(name in header for name in by_hand), by_hand


@pytest.mark.parametrize("name", PAPERS)
def test_paper_presets_take_either_protocol_and_share_no_stage_between_them(name):
    corrected, exact = plan_of(name), plan_of(name, ("protocol=paper-exact",))
    assert protocol_line(exact.study) == protocol_line(exact.study).split(", except")[0], "nothing departs"
    assert protocol_line(corrected.study).startswith("corrected: nested annotation subsets")
    assert len(exact.cells) == len(corrected.cells)
    assert not set(exact.stages) & set(corrected.stages)


def test_the_cardiac_study_shares_its_pretrainings_as_published():
    plan = plan_of("kalapos2022_data_efficiency")
    runs = [stage for stage in plan.stages.values() if stage.kind == "pretrain"]
    assert sorted((stage.epochs, stage.snapshots) for stage in runs) == [(401, (25,)), (401, (25, 34)), (401, (400,))]
    assert {c.annotations for c in plan.cells} == {1, 3, 7, 15, 30, 75, 150, 300, 749, 1498}
    assert len([c for c in plan.cells if c.source != "random"]) == 600
    lengths = plan_of("kalapos2022_pretraining_epochs")
    assert summarise(lengths, {}).num_pretrain == 1
    own = plan_of("kalapos2022_pretraining_epochs", ("pretraining.schedule=own",))
    assert summarise(own, {}).num_pretrain == 23


SHORT = ["pretraining.image_size=32", "pretraining.batch_size=4", "pretraining.precision=float32"]
"""What every toy study changes; the other overrides name tasks, methods and the grid."""


def toy_task(task, *, decoder=True, size=32, **more):
    given = {
        f"tasks.{task}.training.epochs": 1,
        f"tasks.{task}.training.batch_size": 4,
        f"tasks.{task}.training.image_size": size,
        f"tasks.{task}.training.precision": "float32",
        f"tasks.{task}.training.steps": "natural",
        **({f"tasks.{task}.decoder_channels": [8, 8]} if decoder else {}),
        **{f"tasks.{task}.{key}": value for key, value in more.items()},
    }
    return [f"{key}={json.dumps(value)}" for key, value in given.items()]


RESNET = [f"backbones.resnet50.encoder={TINY['resnet']}"]
BYOL = ["pretraining.methods.byol.hidden_features=8", "pretraining.methods.byol.predictor_features=8",
        "pretraining.methods.byol.output_features=8"]  # fmt: skip
STEPS_AS_PUBLISHED = "tasks.heart.training.steps=kalapos2022"
TAHER_TASKS = [
    *toy_task("DXC5", decoder=False), *toy_task("PXS", **{"training.reading.resize_px": 32}),
    "grid.task=[DXC5,PXS]", "grid.seed=[0]",
]  # fmt: skip
VIT = {"encoder": TINY["vit"], "options": VIT_OPTIONS}
TOY = {
    "kalapos2022_data_efficiency": [
        *RESNET, *BYOL, *toy_task("heart"), STEPS_AS_PUBLISHED, "protocol=paper-exact", "grid.annotations=[25%]",
        "grid.seed=[0]", "grid.source=[random,imagenet-byol-acdc-byol-25]", "tasks.heart.evaluation.pad_to_px=64",
        'sources.imagenet-byol-acdc-byol-25=[{weights: byol-yaox12}, {pretrain: {pack: acdc, method: byol, epochs: 1,'
        ' of_epochs: 2}}]',
    ],
    "kalapos2022_pretraining_epochs": [
        *RESNET, *BYOL, *toy_task("heart"), "grid.pretrain_epochs=[0,1]", "grid.annotations=[4]",
    ],
    "kalapos2022_convergence": [
        *RESNET, *toy_task("heart"), "grid.annotations=[4]", "grid.seed=[0]", "grid.source=[random,imagenet]",
    ],
    "taher2021_ssl_imagenet": [
        *RESNET, f"backbones.resnet50-rgb.encoder={TINY['resnet']}", *TAHER_TASKS, "protocol=paper-exact",
        *toy_task("ECC", decoder=False), "grid.task=[DXC5,ECC,PXS]", "grid.source=[swav]",
    ],
    "taher2021_inat": [
        *RESNET, f"backbones.resnet50-rgb.encoder={TINY['resnet']}", "grid.source=[inat2021]", "grid.seed=[0]",
        *toy_task("VFS", **{"training.reading.resize_px": 32}), *toy_task("TXC", decoder=False), "grid.task=[TXC,VFS]",
    ],
    "taher2021_domain_adaptive": [
        *RESNET, *TAHER_TASKS, *toy_task("DXC14", decoder=False),
        *toy_task("LXS", **{"training.reading.resize_px": 32}), "grid.task=[DXC14,LXS]",
        "grid.source=[imagenet-chexpert]",
    ],
    "taher2021_label_fractions": [*RESNET, *TAHER_TASKS, "grid.annotations=[50%]", "grid.source=[detco]"],
    "four_axes": [
        *RESNET, *toy_task("heart"), "grid.annotations=[4]", "grid.seed=[0]", "grid.pretrain_epochs=[1,2]",
        "grid.method=[simclr]", "grid.source=[imagenet-acdc]",
    ],
    "modern_2026": [
        *(f"backbones.{key}={json.dumps(VIT)}" for key in ("vit", "dinov2")),
        *toy_task("findings", decoder=False), "grid.backbone=[vit]", "grid.source=[mae,mae-chest]", "grid.method=[mae]",
        "grid.pretrain_epochs=[1]", "grid.annotations=[all]", "grid.seed=[0]", "grid.tuning=[lora]",
        "pretraining.methods.mae={decoder_features: 16, decoder_heads: 2, decoder_depth: 1}",
    ],
    "template": [
        f"backbones.resnet18.encoder={TINY['resnet']}", *BYOL, *toy_task("structures"), "grid.seed=[0]",
        "grid.annotations=[4]", "grid.pretrain_epochs=[1]", "grid.source=[imagenet,mine]",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Pack look-alikes when they are first asked for."""
    folder, made = tmp_path_factory.mktemp("packs"), {}

    def pack(name):
        return made.setdefault(name, None) or made.__setitem__(name, toy_pack(name, folder)) or made[name]

    return pack


@pytest.fixture
def published(monkeypatch):
    """Replace the zoo's weights by stand-ins of tiny encoders, and probe few places."""
    monkeypatch.setattr("raysweep.stages.probes.MAX_CELLS", {"train": 64, "val": 64})
    tiny = {name: stand_in(name) for name in zoo.names()}
    for module in ("raysweep.zoo", "raysweep.zoo._weights"):
        monkeypatch.setattr(f"{module}.weights", lambda: tiny)
    return tiny


@pytest.mark.parametrize("name", NAMES)
def test_preset_runs_from_end_to_end_at_toy_scale(name, packs, published, tmp_path):
    store = Store(tmp_path / "store").prepare()
    changes = [*SHORT, *TOY[name]]
    drafted = load_study(FOLDER / f"{name}.yaml", changes)
    used = {drafted.task_settings(task).pack for task in drafted.task_names}
    used |= {s.pretrain.pack for source in drafted.grid.source for s in drafted.sources[source] if s.pretrain}
    spare = packs(next(iter(used)))
    changes += [f"packs.{pack}={{file: {packs(pack) if pack in used else spare}}}" for pack in drafted.packs]
    study = load_study(FOLDER / f"{name}.yaml", changes)
    for source in study.grid.source:
        weights = study.sources[source][0].weights
        if weights is not None:
            known = weights.timm or weights.zoo
            store_stand_in(store, known, published[known].architecture if weights.zoo else TINY["resnet"])
    outcome = run(study, store=store, executor="inline").outcome
    assert not outcome.failed, next(iter(outcome.failed.values()))
    trials = study_tables(store, study.study).trials().to_pylist()
    assert len(trials) == len({row["cell"] for row in trials}) >= 2
    assert all(row["status"] == "done" and 0 <= row["test_score"] <= 1 for row in trials)
