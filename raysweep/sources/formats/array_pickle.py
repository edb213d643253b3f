"""Pickles of arrays, as JAX, haiku and detectron publish them, read without running what they ask for.

Only arrays, numbers, texts and containers come out. Classes of training code (a namespace of arguments, a named tuple
of parameters, an optimiser's state) become inert mappings; any other name in the file is refused.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

HARMLESS = (
    "argparse.",
    "byol.",
    "dill.",
    "fvcore.",
    "haiku.",
    "jax.",
    "jaxlib.",
    "lightning.",
    "lightning_fabric.",
    "mmcv.",
    "mmengine.",
    "omegaconf.",
    "optax.",
    "pathlib.",
    "pytorch_lightning.",
    "solo.",
    "yacs.",
)
"""Name spaces whose classes hold settings or arrays; an inert mapping stands for each, and nothing is imported."""

_FIELDS = {
    "_ByolExperimentState": ("online_params", "target_params", "online_state", "target_state", "online_opt_state")
}
"""Fields of named tuples whose class a file names without describing it."""
_NUMBERS = re.compile(r"[<>|=]?(?:f[248]|[iu][1248]|b1|\?)")


class Inert(dict[Any, Any]):
    """Stands for an object of a class that is not imported: what it was made from and filled with, as a mapping."""

    fields: tuple[str, ...] = ()

    def __new__(cls, *args: Any, **options: Any) -> Inert:
        """Make one, filled with what it is made from; pickles make some without initialising them."""
        made = super().__new__(cls)
        dict.update(made, zip(cls.fields or map(str, range(len(args))), args, strict=False))
        dict.update(made, options)
        return made

    def __init__(self, *_args: Any, **_options: Any) -> None:
        super().__init__(self)

    def __setstate__(self, state: Any) -> None:
        """Take over the attributes that the object had."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.update(part)

    def append(self, value: Any) -> None:
        """Take an item of what was a list."""
        self[str(len(self))] = value

    def extend(self, values: Iterable[Any]) -> None:
        """Take items of what was a list."""
        for value in values:
            self.append(value)


class _DType:
    """Stands for a numpy dtype: numbers only, and of what the file says about it only the byte order is believed."""

    def __init__(self, kind: Any, *_flags: Any) -> None:
        if not isinstance(kind, str) or not _NUMBERS.fullmatch(kind):
            raise pickle.UnpicklingError(f"it holds an array of dtype {kind!r}; only arrays of numbers are read")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        """Take over the byte order."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class ArrayInFile:
    """Stands for a numpy array until its content is known."""

    def __init__(self, *_args: Any) -> None:
        self.value: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        """Take over shape, dtype and content."""
        _, shape, dtype, is_fortran, data = state
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        content = data.encode("latin1") if isinstance(data, str) else data
        self.value = np.frombuffer(content, dtype=dtype.dtype).reshape(tuple(shape), order=order)


class _Call:
    """A function the file may call; no attribute of it can be changed."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"the file sets the attribute {name} of a function")

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and containers; every other global is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global of the file.

        Raises:
            pickle.UnpicklingError: if nothing harmless does.
        """
        full = f"{module}.{name}"
        if full in NUMPY_STAND_INS:
            stand_in = NUMPY_STAND_INS[full]
            return stand_in if isinstance(stand_in, type) else _Call(stand_in)
        if full == "collections.OrderedDict":
            return OrderedDict
        if full == "_codecs.encode":
            return _Call(_encode)
        if module.startswith("jax") and name.endswith(("reconstruct_array", "reconstruct_device_array")):
            return _Call(_jax_array)
        if full == "dill._dill._create_namedtuple":
            return _Call(_named_tuple)
        if full.startswith(HARMLESS):
            return type("Inert", (Inert,), {"fields": _FIELDS.get(name, ())})
        raise pickle.UnpicklingError(f"it asks for {full}, which is neither an array nor a container.")


def read_array_pickle(stream: IO[bytes]) -> Any:
    """Read one pickle of arrays.

    Raises:
        pickle.UnpicklingError: if it is damaged, or asks for anything else.
    """
    return ArrayUnpickler(stream).load()


def _scalar(dtype: _DType, data: Any) -> Any:
    content = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(content, dtype=dtype.dtype, count=1)[0].item()


def _frombuffer(data: Any, dtype: _DType, shape: Sequence[int], order: Any) -> ArrayInFile:
    array = ArrayInFile()
    array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}; numpy writes latin1")
    return text.encode("latin1")


def _jax_array(make: Any, args: Sequence[Any], state: Any, _aval: Any = None) -> ArrayInFile:
    array = make(*args) if make is ArrayInFile else None
    if array is None:
        raise pickle.UnpicklingError("a JAX array is not made from a numpy array")
    array.__setstate__(state)
    return array


def _named_tuple(_name: str, fields: Sequence[str], *_rest: Any) -> type[Inert]:
    names = fields.replace(",", " ").split() if isinstance(fields, str) else fields
    return type("Inert", (Inert,), {"fields": tuple(map(str, names))})


NUMPY_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": ArrayInFile,
    "numpy.dtype": _DType,
    # numpy 1 and numpy 2 write different names of the same functions.
    **{f"numpy.{core}.multiarray._reconstruct": ArrayInFile for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}
"""What stands for numpy's own names: numpy would believe a dtype of the file about where Python objects lie."""
