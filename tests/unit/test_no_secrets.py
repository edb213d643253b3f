"""Secrets are refused on their way in, and masked on their way out."""

from __future__ import annotations

import pytest
import yaml

from raysweep.cli import main
from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch
from raysweep.errors import StudyError
from raysweep.stages.failure import failure_of
from raysweep.study import load_study
from raysweep.sweep import open_store, plan, run
from tests.fake_stages import Fake, fake_plan
from tests.studies import fake_study, study_document

KEY = "AKIAIOSFODNN7EXAMPLE"
PASSWORD = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def study_file(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study_document()))
    return file


def test_study_file_with_a_secret_is_refused_even_in_a_comment(study_file):
    study_file.write_text(study_file.read_text() + f"# s3 key: {KEY}\n")
    with pytest.raises(StudyError, match="looks like a secret") as caught:
        load_study(study_file)
    assert KEY not in str(caught.value)


def test_override_with_a_secret_is_refused(study_file):
    with pytest.raises(StudyError, match=r"--set description: .*looks like a secret") as caught:
        load_study(study_file, [f"description={KEY}"])
    assert KEY not in str(caught.value)


def test_study_built_in_python_with_a_secret_is_refused(tmp_path):
    with pytest.raises(StudyError, match="looks like a secret"):
        plan(fake_study({"description": f"token={PASSWORD}"}), store=tmp_path / "store")
    assert not (tmp_path / "store/results").exists()


def test_store_address_with_a_password_is_refused():
    with pytest.raises(StudyError, match="looks like a secret") as caught:
        open_store(f"s3://user:{PASSWORD}@bucket/prefix")
    assert PASSWORD not in str(caught.value)


def test_secret_given_as_a_tracker_is_not_repeated(tmp_path, cardiac_pack, leaves_pack):
    document = study_document(str(cardiac_pack), str(leaves_pack))
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(StudyError, match="there is no tracker") as caught:
        run(file, store=tmp_path / "store", executor="inline", track=[f"wandb:api_key={PASSWORD}"])
    assert PASSWORD not in str(caught.value)


def test_error_on_the_command_line_is_masked(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["raysweep", "cluster", "render", f"password={PASSWORD}"])
    with pytest.raises(SystemExit):
        main()
    assert PASSWORD not in capsys.readouterr().err


def test_failure_that_names_a_secret_is_recorded_without_it(tiny_store, monkeypatch):
    def fails(*_, **__):
        raise OSError(f"403 for https://user:{PASSWORD}@host/file")
        yield

    monkeypatch.setattr("raysweep.stages.run.run_stage", fails)
    planned = fake_plan([Fake("a")], resources={"attempts": 1})
    InlineExecutor().run(Launch(planned, tiny_store))
    written = b"".join(tiny_store.read_bytes(path) or b"" for path in tiny_store.list(""))
    assert b"403 for https://user:***@host/file" in written
    assert PASSWORD.encode() not in written
    assert PASSWORD not in failure_of(ValueError(f"secret: {PASSWORD}")).traceback
