"""Files of every kind are read without executing anything in them."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysweep.errors import WeightsError
from raysweep.sources.formats import read_tensors
from raysweep.sources.formats.crc32c import crc32c
from tests.unit.sources.published import bytewise_crc32c, write_tensorflow

VARIABLES = {
    "base_model/conv2d/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1),
    "base_model/conv2d_1/kernel": np.ones((3,), np.float32),
    "empty": np.zeros((0, 2), np.float32),
    "global_step": np.array(7, np.int64),
}


def test_crc32c_has_the_published_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"") == 0


@given(st.binary(max_size=300))
def test_crc32c_in_lanes_is_that_byte_by_byte(data):
    assert crc32c(data) == bytewise_crc32c(data)


@pytest.mark.parametrize("named", ["index", "prefix", "data", "folder"])
def test_a_tensorflow_checkpoint_is_read_however_it_is_named(tmp_path, named):
    index = write_tensorflow(tmp_path / "model.ckpt-7", VARIABLES)
    path = {
        "index": index,
        "prefix": tmp_path / "model.ckpt-7",
        "data": tmp_path / "model.ckpt-7.data-00000-of-00001",
        "folder": tmp_path,
    }[named]
    read = read_tensors(path)
    assert read.keys() == VARIABLES.keys()
    for name, value in VARIABLES.items():
        np.testing.assert_array_equal(read[name].numpy(), value)


def test_a_damaged_tensorflow_checkpoint_is_refused_wherever_the_damage_is(tmp_path):
    index = write_tensorflow(tmp_path / "m", VARIABLES)
    data = tmp_path / "m.data-00000-of-00001"
    whole_data, whole_index = data.read_bytes(), index.read_bytes()
    data.write_bytes(whole_data[:5] + b"\xff" + whole_data[6:])
    with pytest.raises(WeightsError, match=r"does not match its checksum: m\.data"):
        read_tensors(index)
    data.write_bytes(whole_data[:-1])
    with pytest.raises(WeightsError, match=r"bytes in m\.data"):
        read_tensors(index)
    data.write_bytes(whole_data)
    for position in range(0, len(whole_index) - 60, 7):
        index.write_bytes(whole_index[:position] + bytes([whole_index[position] ^ 0x40]) + whole_index[position + 1 :])
        with pytest.raises(WeightsError, match="not a safe checkpoint"):
            read_tensors(index)
    for length in (0, 10, len(whole_index) // 2, len(whole_index) - 1):
        index.write_bytes(whole_index[:length])
        with pytest.raises(WeightsError, match="not a safe checkpoint"):
            read_tensors(index)
    index.write_bytes(whole_index)
    data.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        read_tensors(index)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays_are_read_in_every_protocol(tmp_path, protocol):
    arrays = {
        "f": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "big": np.arange(3, dtype=">f8"),
        "half": np.ones(2, np.float16),
        "flag": np.array([True, False]),
        "scalar": np.float32(3.5),
    }
    content = OrderedDict(model={"a": arrays, "names": ["x", ("y", None)]}, step=3)
    file = tmp_path / "w.pkl"
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_tensors(file)
    assert set(read) == {f"model.a.{name}" for name in ("f", "big", "half", "flag")}
    for name in ("f", "big", "half", "flag"):
        np.testing.assert_array_equal(read[f"model.a.{name}"].numpy(), arrays[name])


class Command:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_by_the_name_it_asks_for(tmp_path, protocol):
    proof = tmp_path / "proof"
    file = tmp_path / "w.pkl"
    file.write_bytes(pickle.dumps({"a": np.ones(2), "b": Command(proof)}, protocol=protocol))
    with pytest.raises(WeightsError, match=r"asks for \w+\.system, which is neither an array nor a container"):
        read_tensors(file)
    assert not proof.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "subprocess Popen", "dill._dill _create_code", "operator attrgetter"]
)
def test_no_function_of_the_interpreter_is_ever_reached(tmp_path, name):
    module, attribute = name.split()
    file = tmp_path / "w.pkl"
    file.write_bytes(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"X\x01\x00\x00\x001\x85R.")
    with pytest.raises(WeightsError):
        read_tensors(file)


def test_arrays_of_objects_are_refused_and_a_false_dtype_is_not_believed(tmp_path):
    file = tmp_path / "w.pkl"
    file.write_bytes(pickle.dumps({"a": np.array([{}, []], dtype=object)}))
    with pytest.raises(WeightsError, match="only arrays of numbers"):
        read_tensors(file)
    file.write_bytes(pickle.dumps({"a": np.zeros(2, dtype=[("x", object)])}))
    with pytest.raises(WeightsError, match="only arrays of numbers"):
        read_tensors(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_beside_the_weights_of_a_torch_checkpoint_are_passed_over(tmp_path, zipped):
    content = {
        "state_dict": {"a": torch.ones(2)},
        "opt": argparse.Namespace(lr=0.1, path=Path("/x")),
        "best": np.float32(2),
        "array": np.eye(2),
    }
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert set(read_tensors(tmp_path / "w.pth")) == {"state_dict.a", "array"}


def test_an_npz_is_read_and_another_archive_named_for_what_it_holds(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.eye(2))
    torch.testing.assert_close(read_tensors(tmp_path / "w.npz")["a"], torch.eye(2, dtype=torch.float64))
    import zipfile

    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.writestr("models/encoder.pth", b"x")
    with pytest.raises(WeightsError, match=r"an archive of models/encoder\.pth: unpack it"):
        read_tensors(tmp_path / "models.zip")


def test_a_compressed_or_foreign_index_is_refused(tmp_path):
    index = write_tensorflow(tmp_path / "m", VARIABLES)
    index.write_bytes(b"\0" * 40 + struct.pack("<Q", 0xDB4775248B80FB57))
    with pytest.raises(WeightsError):
        read_tensors(index)
    index.write_bytes(b"x" * 100)
    with pytest.raises(WeightsError, match="no TensorFlow checkpoint index"):
        read_tensors(index)
