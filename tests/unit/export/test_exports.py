"""Every export loads in the library it is for, without raysweep, and computes what the store's weights compute."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file

from raysweep.errors import RaysweepError, StoreError, WeightsError
from raysweep.export import export, find_trained
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import build_encoder
from raysweep.sources.models import read_model, write_model
from raysweep.sources.snapshots import Start, read_snapshot, write_snapshot
from raysweep.store import LedgerRecord, Store
from raysweep.sweep import run
from raysweep.tasks._architectures import Design, build_network

CHAIN = {"grid.source": ["leaves-cardiac"], "grid.pretrain_epochs": [1], "tasks.heart.training.epochs": 1}
CELL = "heart/small/leaves-cardiac/simclr/1ep/n4/s0"


@pytest.fixture(scope="module")
def finished(tiny_study, tmp_path_factory):
    """The store of a study of one cell that keeps its network, and the plan."""
    store = Store(tmp_path_factory.mktemp("finished")).prepare()
    study = tiny_study({**CHAIN, "keep_models": True, "tasks.heart.decoder_channels": [16, 8, 8, 8, 8]})
    launched = run(study, store=store, executor="inline")
    assert launched.outcome.is_complete
    return store, launched.plan


TRANSFORMERS = {
    "test_vit": Backbone(encoder="test_vit", options={"patch_size": 8}),
    "test_rotary": Backbone(encoder="vit_small_patch16_dinov3", options={"embed_dim": 48, "num_heads": 3}),
    "test_pooled": Backbone(encoder="eva02_tiny_patch14_224", options={"patch_size": 16}),
}


def snapshot_of(store: Store, backbone: Backbone, stage: str = "abcdef0123"):
    """A store's record of a pretrained encoder with weights and statistics unlike the initial ones."""
    torch.manual_seed(3)
    encoder = build_encoder(backbone)
    for name, buffer in encoder.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    config = {"method": {"name": "byol"}, "pack": "sha256:p", "backbone": backbone.model_dump(mode="json")}
    write_snapshot(store, stage, 3, encoder, Normalisation(mean=0.3, std=0.2), config)
    store.record(LedgerRecord(stage, "done", (3,)))
    return encoder.eval()


def pooled(features: torch.Tensor) -> torch.Tensor:
    return features.mean((2, 3)) if features.ndim == 4 else features


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_timm_loads_an_encoder_strictly_and_computes_its_features(tiny_store, tmp_path, name, suffix):
    encoder = snapshot_of(tiny_store, Backbone(encoder=name, channels=1))
    done = export(find_trained(tiny_store, "abcdef0123"), tmp_path / f"e{suffix}", "timm")
    space: dict = {}
    exec(done.usage, space)
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        theirs = space["model"].eval().forward_features(slices)
        torch.testing.assert_close(theirs, encoder.feature_maps(slices)[-1], rtol=1e-4, atol=1e-5)
    assert bool(done.untrained) == (name == "convnext_atto")


def test_torchvision_loads_a_resnet_whose_grey_features_are_the_same(tiny_store, tmp_path):
    encoder = snapshot_of(tiny_store, Backbone(encoder="resnet18", channels=1))
    done = export(find_trained(tiny_store, "abcdef"), tmp_path / "e.pth", "torchvision")
    space: dict = {"torchvision": torchvision}
    exec(done.usage, space)
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        theirs = space["model"].eval()(slices.expand(-1, 3, -1, -1))
        torch.testing.assert_close(theirs, encoder(slices), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["convnext_atto", "resnet50d", "vit_tiny_patch16_224"])
def test_torchvision_is_refused_for_what_it_does_not_have(tiny_store, tmp_path, name):
    snapshot_of(tiny_store, Backbone(encoder=name, channels=1))
    with pytest.raises(WeightsError, match="torchvision has no network with the layers of"):
        export(find_trained(tiny_store, "abcdef"), tmp_path / "e.pth", "torchvision")
    assert not (tmp_path / "e.pth").exists()


def test_segmentation_models_pytorch_loads_an_encoder_into_its_own(tiny_store, tmp_path):
    encoder = snapshot_of(tiny_store, Backbone(encoder="resnet18", channels=1))
    export(find_trained(tiny_store, "abcdef"), tmp_path / "e.safetensors", "segmentation-models-pytorch")
    unet = smp.Unet("tu-resnet18", encoder_weights=None, in_channels=1, classes=4)
    unet.encoder.load_state_dict(load_file(tmp_path / "e.safetensors"), strict=True)
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(unet.eval().encoder(slices)[-1], encoder.feature_maps(slices)[-1])


@pytest.mark.parametrize("name", ["test_vit", "test_rotary", "test_pooled"])
def test_segmentation_models_pytorch_loads_a_transformer_into_its_dpt(tiny_store, tmp_path, name):
    encoder = snapshot_of(tiny_store, TRANSFORMERS[name])
    done = export(find_trained(tiny_store, "abcdef"), tmp_path / "e.safetensors", "segmentation-models-pytorch")
    space: dict = {}
    exec(done.usage, space)
    slices = torch.rand(2, 1, 4 * encoder.patch_px, 4 * encoder.patch_px)
    with torch.no_grad():
        inner = space["model"].eval().encoder.model
        torch.testing.assert_close(
            inner.forward_intermediates(slices, norm=True)[1][-1], encoder.feature_maps(slices)[-1]
        )


@pytest.mark.parametrize("side", [14, 16])
def test_a_dpt_is_exported_whole_where_the_library_takes_its_patches(tiny_store, tmp_path, side):
    torch.manual_seed(0)
    backbone = Backbone(encoder="test_vit", options={"patch_size": side, "img_size": 4 * side})
    encoder = build_encoder(backbone)
    network = build_network(Design("dpt", 2, (), 32), encoder).eval()
    write_model(tiny_store, "abcdef0123", network, Start(encoder, Normalisation()), {}, ["background", "heart"])
    tiny_store.record(LedgerRecord("abcdef0123", "done", ()))
    found = find_trained(tiny_store, "abcdef0123")
    if side == 14:
        with pytest.raises(
            WeightsError, match=r"other layers than the DPT of stage abcdef0123 has, as where.* as timm"
        ):
            export(found, tmp_path / "dpt", "segmentation-models-pytorch")
        assert not (tmp_path / "dpt").exists()
        export(found, tmp_path / "e.safetensors", "timm")
        return
    export(found, tmp_path / "dpt", "segmentation-models-pytorch")
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        theirs = smp.from_pretrained(str(tmp_path / "dpt")).eval()
        torch.testing.assert_close(theirs(slices), network(slices))


def test_huggingfaces_timm_loads_an_encoder_with_its_input(tiny_store, tmp_path):
    encoder = snapshot_of(tiny_store, Backbone(encoder="resnet18", channels=1))
    export(find_trained(tiny_store, "abcdef"), tmp_path / "hub", "huggingface")
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True)
    config = json.loads((tmp_path / "hub" / "config.json").read_text())["pretrained_cfg"]
    assert (config["mean"], config["std"]) == ([0.3], [0.2])
    slices = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(slices), encoder(slices), rtol=1e-4, atol=1e-5)


def test_the_whole_network_of_a_cell_loads_in_a_process_without_raysweep(finished, tmp_path):
    store, plan = finished
    (cell,) = plan.cells
    done = export(find_trained(store, CELL), tmp_path / "unet", "segmentation-models-pytorch")
    model = read_model(store, cell.stage)
    code = (
        f"{done.usage}\nimport torch, sys\nassert 'raysweep' not in sys.modules\n"
        f"torch.save(model.eval()(torch.ones(1, 1, 64, 64)).detach(), {str(tmp_path / 'out.pt')!r})"
    )
    alone = {"capture_output": True, "text": True, "cwd": tmp_path, "env": {"OMP_NUM_THREADS": "1"}, "check": False}
    ended = subprocess.run([sys.executable, "-c", code], **alone)
    assert ended.returncode == 0, ended.stderr
    ours = smp.Unet(**model.facts["network"]["options"])
    ours.load_state_dict(dict(model.tensors))
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "out.pt"), ours.eval()(torch.ones(1, 1, 64, 64)))
    card = json.loads((tmp_path / "unet" / "raysweep.json").read_text())
    assert card["classes"] == model.facts["classes"]
    assert len(card["classes"]) == 4
    assert card["stage"] == cell.stage


def test_huggingface_holds_whole_networks_as_segmentation_models_pytorch_does(finished, tmp_path):
    store, plan = finished
    done = export(find_trained(store, CELL), tmp_path / "unet", "huggingface")
    space: dict = {}
    exec(done.usage, space)
    expected = read_model(store, plan.cells[0].stage).tensors
    assert all(torch.equal(value, expected[key]) for key, value in space["model"].state_dict().items())


def test_the_fine_tuned_encoder_of_a_cell_is_exported_too(finished, tmp_path):
    store, plan = finished
    (cell,) = plan.cells
    export(find_trained(store, cell.stage[:8]), tmp_path / "e.safetensors", "timm")
    tuned = load_file(tmp_path / "e.safetensors")
    before = read_snapshot(store, plan.stages[cell.stage].parent.stage, 1).encoder.model.state_dict()
    assert not torch.equal(tuned["conv1.0.weight"], before["conv1.0.weight"])
    whole = read_model(store, cell.stage).tensors
    assert torch.equal(tuned["conv1.0.weight"], whole["encoder.model.conv1.0.weight"])


def test_snapshots_and_models_carry_their_lineage(finished):
    store, plan = finished
    (cell,) = plan.cells
    model = read_model(store, cell.stage)
    first, *steps = model.facts["lineage"]
    assert first == {"random": True}
    assert [step["stage"] for step in steps] == list(cell.lineage)
    assert [step["method"] for step in steps] == ["simclr", "simclr"]
    assert steps[1]["pack"] == plan.stages[cell.lineage[1]].config["pack"]
    path = store.local_path(store.snapshot_path(cell.lineage[1], 1))
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["raysweep"])
    assert facts["lineage"] == model.facts["lineage"][:2]
    assert {"backbone", "timm", "normalisation", "config", "epoch"} <= facts.keys()


def test_asking_for_models_later_runs_only_the_finetune_stages_again(tiny_study, tiny_store):
    first = run(tiny_study(CHAIN), store=tiny_store, executor="inline")
    with pytest.raises(StoreError, match=r"was not kept.*keep_models=true"):
        find_trained(tiny_store, CELL)
    before = first.tables().trials()
    again = run(tiny_study({**CHAIN, "keep_models": True}), store=tiny_store, executor="inline")
    assert again.outcome.done == 1
    assert again.tables().trials().drop(["wall_s"]) == before.drop(["wall_s"])
    assert run(tiny_study({**CHAIN, "keep_models": True}), store=tiny_store, executor="inline").outcome.done == 0
    assert find_trained(tiny_store, CELL).network is not None


def test_what_is_not_there_is_refused_by_name(finished, tiny_store, tmp_path):
    store, _ = finished
    with pytest.raises(StoreError, match=f"no cell or stage .* Did you mean '{CELL}'"):
        find_trained(store, CELL[:-1])
    snapshot_of(tiny_store, Backbone(encoder="test_resnet"))
    with pytest.raises(StoreError, match="no snapshot of epoch 9; it has 3"):
        find_trained(tiny_store, "abcdef", epoch=9)
    found = find_trained(tiny_store, "abcdef")
    with pytest.raises(RaysweepError, match=r"ends in \.safetensors"):
        export(found, tmp_path / "e.bin", "timm")
    with pytest.raises(RaysweepError, match="a folder of several files"):
        export(found, tmp_path / "e.pth", "huggingface")
    with pytest.raises(RaysweepError, match="unknown format 'onnx'"):
        export(found, tmp_path / "e.pth", "onnx")


def test_a_failed_stage_has_nothing_to_export(tiny_store):
    tiny_store.record(LedgerRecord("abcdef0123", "failed", error="no memory"))
    with pytest.raises(StoreError, match="failed: no memory"):
        find_trained(tiny_store, "abcdef0123")
