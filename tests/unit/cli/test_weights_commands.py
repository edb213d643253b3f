"""The weights and export commands as a person meets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
import torch

from raysweep.cli import main
from raysweep.settings import Backbone, Normalisation
from raysweep.sources.encoder import build_encoder
from raysweep.sources.snapshots import write_snapshot
from raysweep.store import LedgerRecord, Store
from tests.unit.sources import published

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run a command in this process; return exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raysweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def insdis(tmp_path_factory):
    """InsDis as its publishers wrote it."""
    file = tmp_path_factory.mktemp("insdis") / "InsDis.pth"
    torch.save(published.pycontrast(published.resnet_state(width=False)), file)
    return file


def test_weights_are_listed_imported_shown_and_checked(invoke, tmp_path, insdis):
    store = ("--store", tmp_path / "store")
    code, out, _ = invoke("weights", "list", "--json", *store)
    assert code == 0
    states = {row["name"]: row["state"] for row in json.loads(out)}
    assert (states["moco-v2"], states["insdis"]) == ("to fetch", "to get by hand")
    code, out, _ = invoke("weights", "show", "insdis", *store)
    assert "no; open the page, follow its Dropbox folder, and download InsDis.pth" in " ".join(out.split())
    code, out, err = invoke("weights", "import", insdis, "--as", "insdis", *store)
    assert code == 0, err
    assert "318 tensors of resnet50 in the store" in out
    code, out, _ = invoke("weights", "list", "--here", *store)
    assert [line.split()[0] for line in out.splitlines()] == ["name", "insdis"]
    code, out, _ = invoke("weights", "show", "insdis", "--json", *store)
    assert json.loads(out)["stored"]["prefix"] == "model.module.encoder."
    code, out, _ = invoke("weights", "check", "--channels", "1", *store)
    assert code == 0
    assert "weights insdis: 318 keys matched, input channels 3 -> 1: summed" in out


def test_checking_a_file_accounts_for_its_keys_and_says_what_does_not_fit(invoke, tmp_path, insdis):
    code, out, _ = invoke("weights", "check", insdis, "--encoder", "resnet50", "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["matched"], report["missing"], report["unexpected"]) == (318, [], [])
    assert report["dropped"] == 3
    code, _, err = invoke("weights", "check", insdis, "--encoder", "resnet18")
    assert code == 1
    assert "These keys look like ResNet-50" in err
    code, _, err = invoke("weights", "check", insdis)
    assert code == 1
    assert "--encoder resnet50" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("weights", "fetch", "infomin"), "without a person"),
        (("weights", "fetch", "moco-v3"), "Did you mean 'moco-v"),
        (("weights", "show", "nothing-like-it"), "no weights are named"),
        (("weights", "import", "nowhere.pth", "--as", "insdis"), "nowhere.pth does not exist"),
        (("weights", "list", "--study", "x"), "allowed: foundation, kalapos-2022"),
        (("export", "nothing", "--to", "e.pth"), "no cell or stage 'nothing'"),
        (("export", "nothing", "--to", "e.pth", "--format", "onnx"), "onnx"),
    ],
)
def test_wrong_use_is_exit_code_2_with_one_message(invoke, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = invoke(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_export_writes_a_file_and_says_how_to_load_it(invoke, tmp_path):
    store = Store(tmp_path / "store").prepare()
    encoder = build_encoder(Backbone(encoder="resnet18"))
    write_snapshot(store, "abcdef0123", 2, encoder, Normalisation(), {"pack": "p"})
    store.record(LedgerRecord("abcdef0123", "done", (2,)))
    file = tmp_path / "out" / "e.safetensors"
    code, out, err = invoke("export", "abcdef0123", "--to", file, "--format", "timm", "--store", store.uri)
    assert code == 0, err
    assert file.exists()
    assert "timm.create_model('resnet18', num_classes=0, in_chans=1)" in out


@pytest.mark.parametrize("command", ["list", "show", "fetch", "import", "check"])
def test_every_weights_command_has_help_with_an_example(invoke, command):
    code, out, _ = invoke("weights", command, "--help")
    assert code == 0
    assert f"Example: raysweep weights {command}" in " ".join(out.split())
