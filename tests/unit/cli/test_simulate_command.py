"""The simulate command as a person meets it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raysweep.cli import main
from tests.studies import study_document, with_changes


@pytest.fixture
def simulate(monkeypatch, capsys, tmp_path, cardiac_pack, leaves_pack):
    """Run the command on a study file of two seeds; return exit code, output and errors."""
    file = tmp_path / "tiny.yaml"
    changes = {"grid.seed": [0, 1]}
    file.write_text(yaml.safe_dump(with_changes(study_document(str(cardiac_pack), str(leaves_pack)), changes)))

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["simulate", file, "--store", tmp_path / "store", *arguments]
        monkeypatch.setattr(sys, "argv", ["raysweep", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_text_says_what_to_take_and_what_it_rests_on(simulate):
    code, out, err = simulate("--cpus", "1,2,8")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "tiny: 7 of 7 stages left to run"
    assert [line.split()[:2] for line in lines[2:5]] == [["1", "CPU"], ["2", "CPUs"], ["8", "CPUs"]]
    assert "take " in out
    assert "  pretrain small/cardiac/simclr@cardiac/2ep: " in out
    assert "assumed, 500 images/s per GPU" in out


def test_json_and_csv_hold_the_same_rows(simulate, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("{currency: EUR, on_demand: {core_hour: 0.04}, spot: {core_hour: 0.01}}")
    options = ("--cpus", "2,4", "--spot-rate", "0.5", "--prices", prices, "--seed", "3", "--draws", "4")
    code, out, _ = simulate(*options, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["draws"] == 4
    assert found["spot"]["losses_per_node_h"] == 0.5
    assert found["critical_path"][0]["kind"] == "pretrain"
    code, out, _ = simulate(*options, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["cluster"] for row in rows] == ["2 CPUs", "4 CPUs"]
    for row, expected in zip(rows, found["clusters"], strict=True):
        assert float(row["makespan_s"]) == pytest.approx(expected["makespan_s"])
        assert float(row["makespan_low_s"]) <= float(row["makespan_s"]) <= float(row["makespan_high_s"])
        assert row["currency"] == "EUR"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "8"), "asks for no GPU"),
        (("--cpus", "many"), "--cpus 'many' is no list of sizes"),
        (("--prices", "nowhere.yaml"), "price file nowhere.yaml cannot be read"),
    ],
)
def test_wrong_use_is_one_message(simulate, options, message):
    code, _, err = simulate(*options)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_simulating_imports_neither_torch_nor_ray(simulate, tmp_path):
    store, file = str(tmp_path / "store"), str(tmp_path / "tiny.yaml")
    code = (
        f"import sys; sys.argv = ['raysweep', 'simulate', {file!r}, '--store', {store!r}, '--cpus', '2']\n"
        "from raysweep.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_store_that_measured_its_stages_says_so(simulate, tmp_path, monkeypatch):
    from raysweep.planning.cost import Measured, Rates
    from raysweep.results import rates
    from raysweep.sweep import plan

    planned = plan(tmp_path / "tiny.yaml", store=tmp_path / "store")
    known = Rates({stage.shape: Measured(30.0) for stage in planned.stages.values()})
    monkeypatch.setattr(rates, "measured_rates", lambda store, resources: known)
    _, out, _ = simulate("--cpus", "1", "--fresh")
    assert "rates: measured by earlier stages of this store" in out
    assert "draws" not in out
    assert Path(tmp_path / "store").exists()
