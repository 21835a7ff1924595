"""What a served session is asked and answers: JSON, and arrays beside it.

A call is begun by one function on the server and waited for by another, which answers often: so a client knows a server
that works for long from one that hangs.
"""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from thumbnet.compile import errors as compile_errors
from thumbnet.runtime_tests import errors as session_errors
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.errors import DeviceFaultError, ProtocolError
from thumbnet.runtime_tests.session import LayerCost, Measurement, MemoryUse

Arrays = Mapping[str, NDArray[Any]]

#: Names of the functions on the server, with the version of all this.
BEGIN, WAIT = "thumbnet.session.begin.1", "thumbnet.session.wait.1"
#: Where the JSON lies among the arrays.
_JSON = "json"


@dataclass(frozen=True)
class Opened:
    """What a server says of a device that it opened.

    Parameters
    ----------
    name : str
        Of the device, on its own computer.
    place : str or None
        See `DeviceSession.place`.
    compiler : str or None
        What the server builds programs with; None where it builds none.
    """

    name: str
    place: str | None
    compiler: str | None


_SENSELESS = "the server answers {} with what makes no sense; it may be another version of thumbnet"
#: What each call is answered by, beside arrays.
_ANSWERS: dict[str, TypeAdapter[Any]] = {
    "open": TypeAdapter(Opened),
    "load": TypeAdapter(None),
    "run": TypeAdapter(None),
    "run_layers": TypeAdapter(None),
    "measure": TypeAdapter(Measurement),
    "profile": TypeAdapter(list[LayerCost]),
    "predict_cycles": TypeAdapter(CyclePrediction | None),
    "memory_use": TypeAdapter(MemoryUse),
}
#: Errors that stay what they are.
_ERRORS: dict[str, type[Exception]] = {
    name: error
    for module in (compile_errors, session_errors)
    for name, error in inspect.getmembers(module, inspect.isclass)
    if issubclass(error, Exception)
}


def pack_request(fields: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return a call's arguments as bytes."""
    return _pack(json.dumps(fields).encode(), arrays)


def unpack_request(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a call's arguments; raises `ProtocolError` where they make no sense."""
    return _unpack(data)


def pack_answer(call: str, result: object, arrays: Arrays) -> bytes:
    """Return the answer to a call as bytes."""
    return _pack(b'{"result": %s}' % _ANSWERS[call].dump_json(result), arrays)


def pack_error(error: Exception) -> bytes:
    """Return an error as the answer to a call; what it knows beside its message goes along."""
    name, message = type(error).__name__, str(error)
    if name not in _ERRORS:
        name, message = DeviceFaultError.__name__, f"{name}: {message}"
    return _pack(json.dumps({"error": name, "message": message, "fields": vars(error)}, default=str).encode(), {})


def unpack_answer(call: str, data: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return the result of a call and its arrays, or raise the error that it ended with.

    Raises
    ------
    ProtocolError
        The answer makes no sense.
    """
    answer, arrays = _unpack(data)
    if "error" in answer:
        raise _make_error(call, answer)
    try:
        return _ANSWERS[call].validate_python(answer["result"]), arrays
    except (ValidationError, KeyError) as error:
        raise ProtocolError(_SENSELESS.format(call)) from error


def _make_error(call: str, answer: dict[str, Any]) -> Exception:
    try:
        return _ERRORS[answer["error"]](answer["message"], **answer["fields"])
    except (KeyError, TypeError):
        return ProtocolError(_SENSELESS.format(call))


def _pack(text: bytes, arrays: Arrays) -> bytes:
    packed, named = io.BytesIO(), {f"_{name}": array for name, array in arrays.items()}
    np.savez(packed, allow_pickle=False, **{_JSON: np.frombuffer(text, np.uint8), **named})
    return packed.getvalue()


def _unpack(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = dict(found)
        content: dict[str, Any] = json.loads(arrays.pop(_JSON).tobytes())
        return content, {name.removeprefix("_"): array for name, array in arrays.items()}
    except (ValueError, LookupError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ProtocolError(f"a message of a served session is damaged ({error})") from error
