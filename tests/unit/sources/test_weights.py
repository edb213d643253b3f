from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from raysweep.errors import StoreError, StudyError, WeightsError
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import build_encoder, is_convolutional
from raysweep.sources.fit import load_weights
from raysweep.sources.formats import read_tensors
from raysweep.sources.library import IMAGENET, ensure_weights, read_stored_weights
from raysweep.sources.snapshots import build_start, read_snapshot, snapshot_facts, write_snapshot
from raysweep.sources.stored import weights_path

SMALL = Backbone(encoder="test_resnet", channels=1)


def encoder_of(backbone: Backbone = SMALL, seed: int = 0):
    torch.manual_seed(seed)
    return build_encoder(backbone)


def whole_state(name: str = "test_resnet", seed: int = 1, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(name, **options).state_dict()


def first_conv(encoder) -> str:
    return next(key for key, value in encoder.model.state_dict().items() if value.ndim == 4)


def assert_taken(encoder, state, skip=()) -> None:
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    for key, value in encoder.model.state_dict().items():
        if key not in skip:
            torch.testing.assert_close(value, flat[key.replace(".", "_")], rtol=0, atol=0)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "backbone.", "encoder.", "module.encoder_q.", "module.module."]
)
def test_a_prefix_is_removed(prefix):
    encoder, state = encoder_of(), whole_state(in_chans=1)
    report = load_weights(encoder, {prefix + key: value for key, value in state.items()}, name="w")
    assert_taken(encoder, state)
    assert report.matched == len(encoder.model.state_dict())
    assert report.dropped == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher", "target_backbone"])
def test_a_wrapped_state_dict_is_found_also_beside_tensors(tmp_path, wrapper):
    state = whole_state(in_chans=1)
    content = state if wrapper is None else {"epoch": 3, "loss": torch.tensor(0.5), wrapper: state}
    torch.save(content, tmp_path / "w.pth")
    encoder = encoder_of()
    load_weights(encoder, read_tensors(tmp_path / "w.pth"), name="w")
    assert_taken(encoder, state)


def test_flattened_names_of_a_feature_extractor_match_plain_ones():
    encoder, state = encoder_of(Backbone(encoder="convnext_atto", channels=1)), whole_state("convnext_atto", in_chans=1)
    assert {key.split(".")[0] for key in encoder.model.state_dict()} & {"stem_0", "stages_0"}
    load_weights(encoder, state, name="w")
    assert_taken(encoder, state)
    assert is_convolutional(encoder)


def test_three_input_channels_are_summed_into_one():
    encoder, state = encoder_of(), whole_state()
    key = first_conv(encoder)
    report = load_weights(encoder, state, name="w")
    torch.testing.assert_close(encoder.model.state_dict()[key], state[key].sum(1, keepdim=True))
    assert report.adapted == (key,)
    assert_taken(encoder, state, skip=report.adapted)


def test_one_input_channel_is_spread_over_three_so_that_a_grey_image_gives_the_same_features():
    one, three = encoder_of(), encoder_of(Backbone(encoder="test_resnet", channels=3), seed=5)
    state = {**whole_state(in_chans=1)}
    load_weights(one, state, name="w")
    assert load_weights(three, state, name="w").adapted == (first_conv(three),)
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(three.eval()(image.expand(-1, 3, -1, -1)), one.eval()(image), rtol=1e-4, atol=1e-5)


def test_a_convolution_that_only_differs_in_its_input_channels_is_not_adapted_unless_it_is_the_first():
    encoder = encoder_of()
    state = dict(encoder.model.state_dict())
    later = [key for key, value in state.items() if value.ndim == 4][1]
    state[later] = torch.cat((state[later], state[later]), 1)
    with pytest.raises(WeightsError, match="of another shape"):
        load_weights(encoder, state, name="w")


def test_weights_that_lack_keys_are_refused_with_counts_and_the_encoder_is_left_alone():
    encoder, state = encoder_of(), whole_state(in_chans=1)
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    lost = [key for key in state if key.startswith("layer4") and not key.endswith("num_batches_tracked")]
    total = len(before)
    partial = {key: value for key, value in state.items() if key not in lost}
    with pytest.raises(WeightsError, match=f"{total - len(lost)} of its {total} keys matched") as caught:
        load_weights(encoder, partial, name="/some/w.pth")
    assert "/some/w.pth" in str(caught.value)
    assert f"({len(lost)} in all)" in str(caught.value)
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_deeper_network_does_not_pass_for_a_shallower_one():
    deep = whole_state("resnet34", in_chans=1)
    with pytest.raises(WeightsError, match=r"not in the encoder: layer1\.2"):
        load_weights(encoder_of(Backbone(encoder="resnet18", channels=1)), deep, name="w")


def test_weights_of_nothing_like_the_encoder_say_that_no_key_matched():
    with pytest.raises(WeightsError, match="0 of its"):
        load_weights(encoder_of(), {"a.weight": torch.zeros(3)}, name="w")


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return subprocess.call, (["touch", str(self.proof)],)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path, form):
    file, proof = tmp_path / "w.pth", tmp_path / "proof"
    content = {"state_dict": {"a": torch.zeros(1)}, "extra": Malicious(proof)}
    if form == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(Malicious(proof)))
    with pytest.raises(WeightsError, match="not a safe checkpoint"):
        read_tensors(file)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 60, b"\xff" * 40, b"\x80\x04N."]
)
def test_a_corrupt_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_tensors(tmp_path / name)


def test_truncated_files_are_refused_by_name(tmp_path):
    torch.save(whole_state(), tmp_path / "w.pth")
    save_file(whole_state(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        data = (tmp_path / name).read_bytes()
        for length in (10, len(data) // 2, len(data) - 1):
            (tmp_path / name).write_bytes(data[:length])
            with pytest.raises(WeightsError, match=name):
                read_tensors(tmp_path / name)


def test_a_checkpoint_that_wraps_itself_is_refused(tmp_path):
    content: dict = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth cannot be read"):
        read_tensors(tmp_path / "absent.pth")


def test_an_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(StudyError, match="Did you mean 'resnet18'"):
        build_encoder(Backbone(encoder="resnet18x"))
    with pytest.raises(StudyError, match="without a pretrained tag"):
        build_encoder(Backbone(encoder="resnet18.a1_in1k"))


def test_a_snapshot_brings_back_the_encoder_and_its_input(tiny_store):
    encoder = encoder_of(Backbone(encoder="test_resnet", channels=2, options={"drop_path_rate": 0.1}))
    encoder.train()(torch.randn(4, 2, 32, 32))
    write_snapshot(tiny_store, "s", 3, encoder, Normalisation(mean=0.1, std=0.2), {"a": 1})
    start = read_snapshot(tiny_store, "s", 3)
    assert start.normalisation == Normalisation(mean=0.1, std=0.2)
    assert start.encoder.backbone == encoder.backbone
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(start.encoder.model.state_dict()[key], value)


def test_equal_encoders_give_snapshots_of_equal_bytes(tiny_store):
    for stage in ("a", "a", "b"):
        data = tiny_store.read_bytes(tiny_store.snapshot_path("a", 1))
        write_snapshot(tiny_store, "a", 1, encoder_of(), Normalisation(), {"b": [1], "a": {"z": 1, "y": 2}})
        assert data in (None, tiny_store.read_bytes(tiny_store.snapshot_path("a", 1))), stage
    facts = snapshot_facts(tiny_store, "a", 1)
    assert facts["size_bytes"] == len(data)
    assert facts["digest"].startswith("sha256:")


def test_a_missing_or_corrupt_snapshot_is_named_with_the_remedy(tiny_store):
    with pytest.raises(StoreError, match=r"000003\.safetensors is missing; delete ledger/s\.json"):
        read_snapshot(tiny_store, "s", 3)
    write_snapshot(tiny_store, "s", 3, encoder_of(), Normalisation(), {})
    path = tiny_store.snapshot_path("s", 3)
    data = tiny_store.read_bytes(path)
    save_file({"a": torch.zeros(1)}, tiny_store.local_path(path))
    foreign = tiny_store.read_bytes(path)
    for damaged in (b"", data[:50], data[:-1], foreign):
        tiny_store.write_bytes(path, damaged)
        with pytest.raises(StoreError, match=r"000003\.safetensors is corrupt"):
            read_snapshot(tiny_store, "s", 3)


def config(**start) -> dict:
    return {"backbone": SMALL.model_dump(mode="json"), "start": start}


def test_random_weights_follow_the_global_seed(tiny_store):
    def keys(seed):
        torch.manual_seed(seed)
        return build_start(tiny_store, config(random=True), {}).encoder.model.state_dict()

    first = first_conv(encoder_of())
    assert torch.equal(keys(0)[first], keys(0)[first])
    assert not torch.equal(keys(0)[first], keys(1)[first])


def test_a_weights_file_is_the_start_and_its_input_is_imagenets_unless_said_otherwise(tiny_store, tmp_path):
    state = whole_state()
    torch.save(state, tmp_path / "w.pth")
    inputs = {"weights": str(tmp_path / "w.pth")}
    start = build_start(tiny_store, config(weights="sha256:x"), inputs)
    assert start.normalisation == IMAGENET.for_channels(1)
    assert_taken(start.encoder, state, skip=(first_conv(start.encoder),))
    own = Normalisation(mean=0.3, std=0.4)
    said = build_start(tiny_store, config(weights="sha256:x", normalisation=own.model_dump()), inputs)
    assert said.normalisation == own


TIMM = "test_resnet.r160_in1k"


def test_weights_that_lie_in_the_store_are_used_without_a_download(tiny_store, monkeypatch):
    def no_download(*args, **kwargs):
        raise AssertionError("a download was tried")

    state = whole_state()
    path = tiny_store.local_path(weights_path(TIMM))
    path.parent.mkdir(parents=True)
    save_file(state, path)
    monkeypatch.setattr("raysweep.sources.library.timm.create_model", no_download)
    ensure_weights(tiny_store, TIMM)
    monkeypatch.undo()
    start = build_start(tiny_store, config(weights=TIMM), {})
    assert_taken(start.encoder, state, skip=(first_conv(start.encoder),))
    recorded = timm.get_pretrained_cfg(TIMM)
    assert start.normalisation.mean == pytest.approx(sum(recorded.mean) / 3)
    assert start.normalisation.std == pytest.approx(sum(recorded.std) / 3)


def test_fetched_weights_keep_the_input_timm_records(tiny_store, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: create("test_resnet", **options))
    ensure_weights(tiny_store, TIMM)
    state, normalisation = read_stored_weights(tiny_store, TIMM)
    assert normalisation.mean == timm.get_pretrained_cfg(TIMM).mean
    assert not any(key.startswith("fc") for key in state)


def test_weights_that_timm_does_not_know_or_cannot_fetch_are_refused(tiny_store, monkeypatch):
    with pytest.raises(WeightsError, match=r"no pretrained weights named 'resnet18\.nothing'"):
        ensure_weights(tiny_store, "resnet18.nothing")

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"could not be downloaded: no network.*put a safetensors file"):
        ensure_weights(tiny_store, TIMM)
    assert tiny_store.list("weights") == []


def test_stored_weights_that_are_missing_or_corrupt_are_named(tiny_store):
    with pytest.raises(StoreError, match=weights_path(TIMM)):
        read_stored_weights(tiny_store, TIMM)
    tiny_store.write_bytes(weights_path(TIMM), b"junk")
    with pytest.raises(WeightsError, match=f"{weights_path(TIMM)} is corrupt"):
        read_stored_weights(tiny_store, TIMM)
