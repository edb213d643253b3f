"""With --log-format json, every line on the standard error stream is JSON, with the ids of stage and cells."""

from __future__ import annotations

import json
import logging

import pytest
import yaml

from raysweep.cli import main
from raysweep.logs import DRIVER
from tests.studies import study_document, with_changes


@pytest.fixture
def study_file(tmp_path, cardiac_pack, leaves_pack):
    changes = {"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(with_changes(study_document(str(cardiac_pack), str(leaves_pack)), changes)))
    return file


def test_every_line_of_a_run_is_json_with_ids(study_file, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RAYSWEEP_LOG", "text")  # what the option sets is undone after the test
    arguments = ["run", str(study_file), "--store", str(tmp_path / "store"), "--executor", "inline", "--no-report"]
    monkeypatch.setattr("sys.argv", ["raysweep", *arguments, "--log-format", "json"])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        logging.getLogger(DRIVER).setLevel(logging.CRITICAL)
    assert ended.value.code == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    of_stage = [line for line in lines if "stage" in line]
    assert {line["message"] for line in of_stage} >= {"stage begins", "begins", "epoch 2 of 2", "done", "stage ended"}
    (stage,) = {line["stage"] for line in of_stage}
    assert {tuple(line["cells"]) for line in of_stage} == {("heart/small/random/n4/s0",)}
    assert [line["outcome"] for line in of_stage if line["message"] == "stage ended"] == ["done"]
    assert (tmp_path / "store/logs" / stage).exists()
    assert all({"at", "level", "logger", "host", "pid"} <= line.keys() for line in lines)
