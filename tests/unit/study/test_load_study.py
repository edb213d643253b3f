from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from raysweep.errors import StudyError
from raysweep.study import StageResources, Study, load_study, study_schema
from raysweep.study.load import validate_study
from tests.studies import fake_study, study_document, with_changes

QUICKSTART = Path(__file__).parents[3] / "search_spaces" / "quickstart.yaml"


def written(tmp_path: Path, changes: dict | None = None) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(with_changes(study_document(), changes or {})))
    return file


def error_of(changes: dict) -> str:
    with pytest.raises(StudyError) as caught:
        fake_study(changes)
    return str(caught.value)


def test_weights_of_a_uri_are_refused_with_what_to_do_and_packs_of_one_are_not(tmp_path):
    document = study_document("s3://bucket/cardiac.h5", "packs/leaves.h5")
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(document))
    assert load_study(file).packs["cardiac"].file == "s3://bucket/cardiac.h5"
    document["sources"]["elsewhere"] = {"weights": {"file": "s3://bucket/a.pt"}}
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(
        StudyError, match=r"'s3://bucket/a\.pt' is a URI; weights are read from a path .* `raysweep weights"
    ):
        load_study(file)


def test_a_tag_that_would_build_a_python_object_is_refused_and_nothing_runs(tmp_path):
    file, proof = tmp_path / "study.yaml", tmp_path / "proof"
    file.write_text(f"study: !!python/object/apply:pathlib.Path.touch [!!python/name:x '{proof}']\n")
    with pytest.raises(StudyError, match="not valid YAML"):
        load_study(file)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("study: a\nstudy: b\n", "'study' stands twice"),
        ("grid:\n  seed: [0]\n  seed: [1]\n", "'seed' stands twice"),
        ("? [a]\n: b\n", "cannot be a key"),
        ("a: [1\n", "not valid YAML"),
        ("- a\n", "holds list"),
        ("", "holds NoneType"),
        ("a: &a [*a]\n", "recursive"),
    ],
)
def test_a_file_that_is_no_mapping_of_unique_keys_is_refused_by_name(tmp_path, text, reason):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(StudyError, match=reason) as caught:
        load_study(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(StudyError, match=f"{path} cannot be read"):
            load_study(path)


def test_merge_keys_are_taken_and_own_keys_win(tmp_path):
    document = yaml.safe_dump(with_changes(study_document(), {"resources": ...}))
    merged = "resources:\n  pretrain: &one {cpus: 2, gpus: 1}\n  finetune: {<<: *one, gpus: 0}\n"
    file = tmp_path / "study.yaml"
    file.write_text(document + merged)
    finetune = load_study(file).resources.finetune
    assert (finetune.cpus, finetune.gpus) == (2, 0)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("pakcs", "packs"),
        ("packs.cardiac.fil", "file"),
        ("backbones.small.chanels", "channels"),
        ("sources.cardiac.1.pretrain.epoch", "epochs"),
        ("pretraining.bach_size", "batch_size"),
        ("pretraining.methods.simclr.temperatur", "temperature"),
        ("pretraining.methods.simclr.optimisation.lrr", "lr"),
        ("tasks.heart.decoder_chanels", "decoder_channels"),
        ("tasks.heart.training.epoch", "epochs"),
        ("tasks.heart.training.augmentation.flip", "flip_p"),
        ("grid.sourc", "source"),
        ("resources.finetune.cpu", "cpus"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one_at_every_level(key, nearest):
    message = error_of({key: 1})
    assert f"{key}: unknown key. Did you mean '{nearest}'?" in message
    assert f" {nearest}" in message.split("Allowed:")[1]


@pytest.mark.parametrize(
    ("key", "value", "where", "nearest"),
    [
        ("grid.source", ["cardiak"], "grid.source", "cardiac"),
        ("grid.task", ["hart"], "grid.task", "heart"),
        ("grid.backbone", ["smal"], "grid.backbone", "small"),
        ("grid.method", ["simclrr"], "grid.method", "simclr"),
        ("sources.cardiac.1.pretrain.pack", "cardiak", "sources.cardiac.1.pretrain.pack", "cardiac"),
        ("sources.cardiac.1.pretrain.method", "byool", "sources.cardiac.1.pretrain.method", "byol"),
        ("tasks.heart.pack", "leafs", "tasks.heart.pack", "leaves"),
        ("tasks.heart.kind", "segmentatio", "tasks.heart.kind", "segmentation"),
        ("packs.cardiac", {"dataset": "acdcc"}, "packs.cardiac.dataset", "acdc"),
        ("pretraining.methods", {"bioul": {}}, "pretraining.methods.bioul", "byol"),
    ],
)
def test_an_unknown_name_is_named_with_the_nearest_one(key, value, where, nearest):
    assert f"Did you mean '{nearest}'?" in next(line for line in error_of({key: value}).splitlines() if where in line)


def test_all_errors_are_reported_at_once_whatever_their_kind():
    message = error_of(
        {
            "grid.sourc": ["random"],
            "pretraining.image_size": 33,
            "tasks.heart.loss": "dicee",
            "tasks.heart.training.epochs": 0,
            "pretraining.methods": {"simclr": {"temperature": -1}},
            "study": ...,
        }
    )
    for key in (
        "grid.sourc:",
        "pretraining.image_size:",
        "tasks.heart.loss:",
        "tasks.heart.training.epochs:",
        "pretraining.methods.simclr.temperature:",
        "study: is required",
    ):
        assert key in message
    assert "6 errors" in message
    assert "(found 33)" in message


@pytest.mark.parametrize("axis", ["source", "annotations", "seed"])
def test_an_empty_axis_that_every_cell_needs_is_refused(axis):
    assert f"grid.{axis}" in error_of({f"grid.{axis}": []})


@pytest.mark.parametrize(("axis", "step_key"), [("method", "method"), ("pretrain_epochs", "epochs")])
def test_an_axis_that_a_step_needs_must_have_values_and_one_that_none_takes_must_not(axis, step_key):
    assert f"grid.{axis}: is empty" in error_of({f"grid.{axis}": []})
    assert f"grid.{axis}: has values, but no source" in error_of({"grid.source": ["random"]})


@pytest.mark.parametrize(
    "chain",
    [
        [{"pretrain": {"pack": "cardiac"}}],
        ["random", "random"],
        ["random", {"pretrain": {"pack": "cardiac"}}, {"weights": "resnet18.a1_in1k"}],
    ],
)
def test_a_chain_starts_with_weights_and_goes_on_with_pretraining(chain):
    assert "starts with random or weights" in error_of({"sources.cardiac": chain})


@pytest.mark.parametrize(
    "step",
    ["ranodm", {"random": True, "weights": "a.b"}, {"weights": {"file": "a", "timm": "b.c"}}, {"weights": "resnet18"}],
)
def test_a_step_is_exactly_one_thing(step):
    assert "sources.cardiac" in error_of({"sources.cardiac": [step]})


@pytest.mark.parametrize("value", [0, -1, "0%", "101%", "5 %", "al", "5", 1.5])
def test_annotation_counts_are_numbers_shares_or_all(value):
    assert "grid.annotations" in error_of({"grid.annotations": [value]})


@pytest.mark.parametrize("values", [[0, 0], [1, 2, 1]])
def test_a_value_that_stands_twice_on_an_axis_is_refused(values):
    assert "stands more than once" in error_of({"grid.seed": values})


def test_overrides_set_and_add_keys(tmp_path):
    study = load_study(written(tmp_path), ["grid.seed=[0,1]", "pretraining.methods.simclr.temperature=0.3"])
    assert study.grid.seed == [0, 1]
    assert study.method_settings("simclr").temperature == 0.3


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("grid.seed", "not of the form key=value"),
        ("=1", "not of the form key=value"),
        ("grid.seed=[0", "not valid YAML"),
        ("grid.seed.more=1", "grid.seed is not a mapping"),
        ("grid.sead=[0]", "Did you mean 'seed'"),
        ("study=!!python/name:os.system", "not valid YAML"),
    ],
)
def test_a_bad_override_is_refused(tmp_path, override, reason):
    with pytest.raises(StudyError, match=reason):
        load_study(written(tmp_path), [override])


@pytest.mark.parametrize("weights", ["w.pt", "sub/w.pth", {"file": "w.safetensors"}])
def test_relative_paths_start_at_the_study_file_wherever_it_is_read_from(tmp_path, monkeypatch, weights):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    changes = {
        "packs.cardiac.file": "cardiac.h5",
        "packs.extra": {"dataset": "acdc", "source": "raw"},
        "sources.random": {"weights": weights},
    }
    study = load_study(written(tmp_path, changes))
    name = weights if isinstance(weights, str) else weights["file"]
    assert study.packs["cardiac"].file == str(tmp_path / "cardiac.h5")
    assert study.packs["extra"].source == str(tmp_path / "raw")
    assert study.sources["random"][0].weights.file == str(tmp_path / name)


def test_a_timm_name_is_not_taken_for_a_path(tmp_path):
    study = load_study(written(tmp_path, {"sources.random": {"weights": "resnet18.a1_in1k"}}))
    assert study.sources["random"][0].weights.timm == "resnet18.a1_in1k"


def test_a_study_built_in_python_equals_the_one_loaded(tmp_path):
    document = study_document()
    assert Study(**document) == load_study(written(tmp_path)) == validate_study(document)
    assert Study.model_validate(Study(**document).model_dump()) == Study(**document)


def test_the_schema_accepts_what_loads_and_refuses_what_does_not():
    import jsonschema

    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(study_schema())))
    for document in (yaml.safe_load(QUICKSTART.read_text()), study_document()):
        assert not [error.message for error in validator.iter_errors(document)]
    for changes in (
        {"grid.sourc": 1},
        {"tasks.heart.training.epoch": 1},
        {"sources.random": "ranodm"},
        {"pretraining.methods": {"simclr": {"temperatur": 1}}},
    ):
        assert list(validator.iter_errors(with_changes(study_document(), changes)))


def test_the_quickstart_loads():
    assert load_study(QUICKSTART).study == "quickstart"


@pytest.mark.parametrize("bounds", [[1.0, 0.2], [0.0, 1.0], [0.5, 1.5]])
def test_a_crop_scale_that_is_no_range_of_shares_is_refused(bounds):
    key = "tasks.heart.training.augmentation"
    with pytest.raises(StudyError, match=rf"{key}\.crop_scale: "):
        validate_study(with_changes(study_document(), {key: {"crop_scale": bounds}}))


def test_names_on_the_axes_are_told_together_with_keys_that_are_wrong():
    changes = {"grid.sed": [1], "grid.method": ["simcrl"], "grid.source": ["randm"]}
    with pytest.raises(StudyError) as refused:
        validate_study(with_changes(study_document(), changes))
    told = str(refused.value)
    assert told.startswith("study: 3 errors")
    for hint in ("'seed'", "'simclr'", "'random'"):
        assert f"Did you mean {hint}?" in told


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ("moco-v2", "zoo"),
        ("resnet50.a1_in1k", "timm"),
        ("w.pth.tar", "file"),
        ("model.ckpt-1.index", "file"),
        ("dir/x", "file"),
    ],
)
def test_weights_written_as_one_text_are_a_name_of_the_zoo_or_timm_or_a_file(weights, key):
    from raysweep.study.schema import Step

    assert getattr(Step.model_validate({"weights": weights}).weights, key) == weights


def test_an_unknown_weights_name_is_refused_with_the_nearest_and_never_means_random():
    changes = {"sources.random": {"weights": "moco-v22"}, "backbones.small.encoder": "resnet50"}
    with pytest.raises(StudyError, match=r"no weights are named 'moco-v22'. Did you mean 'moco-v2'\?"):
        validate_study(with_changes(study_document(), changes))


def test_weights_of_another_architecture_than_the_backbone_are_found_before_anything_is_read():
    with pytest.raises(StudyError, match=r"'moco-v2' are of resnet50, but backbones\.small\.encoder is test_resnet"):
        validate_study(with_changes(study_document(), {"sources.random": {"weights": "moco-v2"}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid.tuning": ["lara"]}, "unknown name 'lara'. Did you mean 'lora'?"),
        ({"tunings.mine": {"rank": 4}}, "tunings.mine.kind: is required"),
        ({"tunings.mine": {"kind": "lora", "rnk": 4}}, "Did you mean 'rank'?"),
        ({"tunings.mine": {"kind": "lora", "rank": 0}}, "tunings.mine.rank"),
    ],
)
def test_modes_of_tuning_are_checked_like_every_component(changes, message):
    with pytest.raises(StudyError) as caught:
        validate_study(with_changes(study_document(), changes))
    assert message in str(caught.value)


def test_a_study_may_name_modes_of_its_own():
    study = validate_study(
        with_changes(
            study_document(), {"tunings.wide": {"kind": "lora", "rank": 32}, "grid.tuning": ["wide", "layer-decay"]}
        )
    )
    kind, settings = study.tuning_settings("wide")
    assert (kind, settings.rank) == ("lora", 32)
    assert study.tuning_settings("layer-decay")[1].decay == 0.75


def test_an_input_may_be_named_and_an_unknown_name_is_refused():
    from raysweep.study import WeightsStep

    step = WeightsStep.model_validate({"file": "/w.pth", "normalisation": "half"})
    assert step.normalisation.mean == (0.5, 0.5, 0.5)
    assert WeightsStep.model_validate({"zoo": "moco-v2", "normalisation": "clip-base"}).normalisation.std[0] > 0.26
    with pytest.raises(ValueError, match=r"no input is named 'imagnet'. Did you mean 'imagenet'\?"):
        WeightsStep.model_validate({"file": "/w.pth", "normalisation": "imagnet"})


def test_an_encoder_that_a_method_cannot_train_is_told_before_anything_runs():
    message = error_of({"grid.method": ["simclr", "mae", "spark"], "pretraining.image_size": 32})
    assert "backbones.small: method 'mae' trains transformer encoders, but 'test_resnet' is convolutional" in message
    assert "method 'spark' hides squares of 32 pixels" in message
    assert "simclr" not in message
    named = {"sources.cardiac.1.pretrain.method": "i-jepa", "grid.method": [], "grid.source": ["random", "cardiac"]}
    assert "method 'i-jepa' trains transformer encoders" in error_of(named)
    vit = {"encoder": "test_vit", "options": {"patch_size": 8}}
    fake_study({"grid.method": ["mae"], "backbones.small": vit, "tasks.heart.architecture": "dpt"})


def test_an_architecture_that_an_encoder_cannot_carry_is_told_before_anything_runs():
    message = error_of({"backbones.small.encoder": "test_vit"})
    assert "tasks.heart: architecture 'unet' cannot be built on encoder 'test_vit'" in message
    assert "; dpt can (backbones.small)" in message
    message = error_of({"backbones.small.encoder": "densenet121", "tasks.heart.architecture": "deeplabv3plus"})
    assert "'deeplabv3plus' cannot be built on encoder 'densenet121'" in message
    assert "; unet, unetplusplus, fpn, upernet can" in message


def test_a_method_off_the_grid_is_not_asked():
    study = fake_study({"pretraining.methods": {"mae": {"mask_share": 0.5}}})
    assert "mae" not in study.grid.method


def test_gpus_of_a_pretraining_are_ranks_of_it():
    def ranks(**resources) -> int:
        return StageResources(**resources).num_ranks

    assert [ranks(), ranks(gpus=0.5), ranks(gpus="auto"), ranks(gpus=4), ranks(cpus=4, ranks=2)] == [1, 1, 1, 4, 2]
    with pytest.raises(ValueError, match=r"gpus is a share of one GPU, or a whole number of them, not 1\.5"):
        ranks(gpus=1.5)
    with pytest.raises(ValueError, match="ranks: 2 asks for a GPU each, but gpus is 4"):
        ranks(gpus=4, ranks=2)
    with pytest.raises(StudyError, match=r"resources\.finetune: a fine-tuning is one process on at most one GPU"):
        fake_study({"resources.finetune": {"gpus": 2}})
