"""Which arithmetic `auto` means on a CPU is measured once a machine, and remembered."""

import json

import pytest
import torch

from raysweep.stages import arithmetic
from raysweep.stages.arithmetic import MIN_GAIN, cpu_prefers_bfloat16, measured_gain
from raysweep.stages.runtime import prepare_runtime


@pytest.fixture(autouse=True)
def new_machine(tmp_path, monkeypatch):
    """A cache folder of the test's own, and a CPU that has the type."""
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(arithmetic, "_has_bfloat16", lambda: True)
    arithmetic._remembered_gain.cache_clear()
    yield
    arithmetic._remembered_gain.cache_clear()


@pytest.mark.parametrize(("gain", "precision"), [(MIN_GAIN + 0.01, "bfloat16"), (MIN_GAIN - 0.01, "float32")])
def test_bfloat16_has_to_be_clearly_faster(monkeypatch, gain, precision):
    monkeypatch.setattr(arithmetic, "measured_gain", lambda: gain)
    if not torch.cuda.is_available():
        assert prepare_runtime(0, "auto", 1).precision == precision
    assert cpu_prefers_bfloat16() == (precision == "bfloat16")


def test_it_is_measured_once_and_the_next_process_reads_it(monkeypatch, tmp_path):
    gains = iter([2.0])
    monkeypatch.setattr(arithmetic, "measured_gain", lambda: next(gains))
    assert cpu_prefers_bfloat16()
    arithmetic._remembered_gain.cache_clear()  # as a process that begins
    assert cpu_prefers_bfloat16()
    (file,) = (tmp_path / "cache").iterdir()
    assert json.loads(file.read_text()) == {"bfloat16_gain": 2.0}


def test_whoever_measured_first_decides_for_all(monkeypatch, tmp_path):
    def measure() -> float:
        file = tmp_path / "cache" / f"arithmetic-{arithmetic._machine()}.json"
        file.write_text(json.dumps({"bfloat16_gain": 0.5}))  # another process, meanwhile
        return 2.0

    monkeypatch.setattr(arithmetic, "measured_gain", measure)
    assert not cpu_prefers_bfloat16()


def test_a_damaged_memory_is_measured_anew(monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"arithmetic-{arithmetic._machine()}.json").write_text("{")
    monkeypatch.setattr(arithmetic, "measured_gain", lambda: 2.0)
    assert cpu_prefers_bfloat16()


def test_emulated_bfloat16_is_not_even_measured(monkeypatch):
    monkeypatch.setattr(arithmetic, "_has_bfloat16", lambda: False)
    monkeypatch.setattr(arithmetic, "measured_gain", lambda: pytest.fail("measured"))
    assert not cpu_prefers_bfloat16()


def test_measuring_leaves_generator_and_threads_as_they_were():
    torch.manual_seed(3)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    assert measured_gain() > 0
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
