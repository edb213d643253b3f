"""Weights in the store: imported, fetched, recorded, and what starts from them."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import pytest
import torch

from raysweep import zoo
from raysweep.errors import StoreError, WeightsError
from raysweep.identity import file_digest
from raysweep.settings import Backbone, Normalisation
from raysweep.sources import library
from raysweep.sources.checks import check_stored
from raysweep.sources.library import ensure_weights, import_published, import_timm, read_stored_weights
from raysweep.sources.snapshots import build_start
from raysweep.sources.stored import read_record, record_path, stored_names
from tests.unit.sources import published
from tests.unit.sources.test_download import Server, server  # noqa: F401 - a fixture

FULL = Backbone(encoder="resnet50", channels=1)


@pytest.fixture(scope="module")
def moco_file(tmp_path_factory):
    """MoCo's checkpoint at full size, and the encoder's weights in it."""
    state = published.resnet_state(width=False)
    file = tmp_path_factory.mktemp("moco") / "moco_v2_800ep_pretrain.pth.tar"
    torch.save(published.moco(state), file)
    return file, state


@pytest.fixture(scope="module")
def imported(moco_file, tmp_path_factory):
    """A store into which that file was imported under its name in the zoo."""
    from raysweep.store import Store

    store = Store(tmp_path_factory.mktemp("imported")).prepare()
    import_published(store, zoo.find("moco-v2"), [moco_file[0]], origin="here")
    return store


def test_an_imported_file_is_the_start_of_stages_with_the_input_of_the_zoo(imported, moco_file):
    start = build_start(
        imported,
        {"backbone": FULL.model_dump(mode="json"), "start": zoo.start_of(zoo.find("moco-v2"), "sha256:0")},
        {"zoo": "moco-v2"},
    )
    conv = moco_file[1]["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(start.encoder.model.state_dict()["conv1.weight"], conv)
    assert start.normalisation.mean == pytest.approx(sum(zoo.IMAGENET.mean) / 3)
    assert start.report.channels == "3 -> 1: summed"
    assert start.report.matched == 318


def test_a_three_channel_encoder_keeps_the_statistics_of_each_channel(imported):
    backbone = FULL.model_copy(update={"channels": 3})
    config = {"backbone": backbone.model_dump(mode="json"), "start": zoo.start_of(zoo.find("moco-v2"), None)}
    start = build_start(imported, config, {"zoo": "moco-v2"})
    assert start.normalisation == Normalisation(mean=zoo.IMAGENET.mean, std=zoo.IMAGENET.std)


def test_the_record_says_what_was_imported_and_importing_again_changes_nothing(imported, moco_file):
    file, _ = moco_file
    record = read_record(imported, "moco-v2")
    assert record.digest == file_digest(file)
    assert record.size_bytes == file.stat().st_size
    assert record.prefix == "state_dict.module.encoder_q."
    assert record.num_tensors == 318
    assert stored_names(imported) == ["moco-v2"]
    before = imported.read_bytes("weights/moco-v2.safetensors")
    import_published(imported, zoo.find("moco-v2"), [file], origin="here")
    assert imported.read_bytes("weights/moco-v2.safetensors") == before


def test_another_file_under_the_same_name_is_refused(imported, tmp_path):
    torch.save(published.moco(published.resnet_state(3)), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="the store has other weights as 'moco-v2'"):
        import_published(imported, zoo.find("moco-v2"), [tmp_path / "other.pth"], origin="here")


def test_a_file_other_than_the_one_the_zoo_knows_is_refused(tiny_store, moco_file):
    entry = replace(zoo.find("moco-v2"), sha256="0" * 64)
    with pytest.raises(WeightsError, match="is not the published file of 'moco-v2'"):
        import_published(tiny_store, entry, [moco_file[0]], origin="here")
    assert stored_names(tiny_store) == []


def test_weights_of_another_architecture_do_not_enter_the_store(tiny_store, tmp_path):
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    entry = replace(zoo.find("moco-v2"), prefix=None)
    with pytest.raises(WeightsError, match=r"look like ResNet-18 .* the study asks for ResNet-50"):
        import_published(tiny_store, entry, [tmp_path / "w.pth"], origin="here")
    assert stored_names(tiny_store) == []


def test_a_fetch_brings_every_part_and_leaves_no_download_behind(tiny_store, server, monkeypatch):  # noqa: F811
    server.content = b"not weights"
    entry = replace(zoo.find("moco-v2"), urls=(server.url,))
    monkeypatch.setattr(library.zoo, "weights", lambda: {"moco-v2": entry})
    monkeypatch.setattr(library.zoo, "find", lambda name: entry)
    with pytest.raises(WeightsError, match="not a safe checkpoint"):
        ensure_weights(tiny_store, "moco-v2")
    assert stored_names(tiny_store) == []


def test_a_fetched_checkpoint_lands_in_the_store_and_is_not_fetched_again(
    tiny_store,
    server,  # noqa: F811
    moco_file,
    monkeypatch,
):
    server.content = moco_file[0].read_bytes()
    entry = replace(zoo.find("moco-v2"), urls=(server.url,))
    monkeypatch.setattr(library.zoo, "find", lambda name: entry)
    ensure_weights(tiny_store, "moco-v2")
    assert read_record(tiny_store, "moco-v2").digest == file_digest(moco_file[0])
    assert tiny_store.list("weights/downloads") == []
    server.status = 500
    ensure_weights(tiny_store, "moco-v2")
    assert len(server.ranges) == 1
    assert check_stored(tiny_store, "moco-v2", 1).is_complete


def test_weights_behind_a_form_say_what_a_person_must_do(tiny_store):
    with pytest.raises(WeightsError, match=r"without a person: .*InsDis\.pth.*weights import FILE --as insdis"):
        ensure_weights(tiny_store, "insdis")


def test_a_member_of_an_archive_is_read_without_unpacking_the_rest(tiny_store, tmp_path):
    state = published.resnet_state(width=False)
    torch.save({f"momentum_backbone.{k}": v for k, v in state.items() if "fc" not in k}, tmp_path / "m.pth")
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.write(tmp_path / "m.pth", "models/supervised-imagenet-byol-acdc-ep=25.pth")
    record = import_published(tiny_store, zoo.find("imagenet-byol-acdc"), [archive], origin="here")
    assert record.digest == file_digest(archive)
    assert record.num_tensors == 318
    with pytest.raises(WeightsError, match=r"has no member .byol_acdc_backbone_last\.pth."):
        import_published(tiny_store, zoo.find("byol-acdc"), [archive], origin="here")


def test_timm_weights_can_be_imported_from_a_file(tiny_store, tmp_path):
    state = published.resnet_state(width=False)
    torch.save(state, tmp_path / "w.pth")
    import_timm(tiny_store, "resnet50.a1_in1k", tmp_path / "w.pth")
    read, normalisation = read_stored_weights(tiny_store, "resnet50.a1_in1k")
    torch.testing.assert_close(read["conv1.weight"], state["conv1.weight"])
    assert normalisation.mean == zoo.IMAGENET.mean
    ensure_weights(tiny_store, "imagenet")  # the zoo's name for the same weights
    with pytest.raises(WeightsError, match=r"timm .* knows no weights named"):
        import_timm(tiny_store, "resnet50.nothing", tmp_path / "w.pth")


def test_a_corrupt_record_is_named_with_the_remedy(tiny_store):
    tiny_store.write_bytes(record_path("moco-v2"), b"{}")
    with pytest.raises(StoreError, match=r"weights/moco-v2\.json is corrupt.*weights fetch moco-v2"):
        read_record(tiny_store, "moco-v2")
