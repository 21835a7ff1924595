"""thumbnet from Python: all that a program of yours needs, in one place; `python_api.md` shows it at work.

What is listed in ``__all__`` keeps its name and meaning from release to release; where it is defined may change.
"""

from __future__ import annotations

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import CompileError
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference
from thumbnet.compile.quantize_request import quantize_input, quantize_network
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.models.errors import ModelError
from thumbnet.models.given_preprocessing import GivenPreprocessing
from thumbnet.models.image_folder import load_images
from thumbnet.models.weights import TrainedModel
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.network_tests import run_tests
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.report import Report
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import load_trained, make_request
from thumbnet.tools.network_options import NetworkFiles

__all__ = [
    "Artifact",
    "Board",
    "CompileError",
    "CompileOptions",
    "CompileRequest",
    "Device",
    "DeviceSession",
    "GivenPreprocessing",
    "IntegerNetwork",
    "ModelError",
    "NetworkFiles",
    "Report",
    "SessionError",
    "TrainedModel",
    "compile_model",
    "get_board",
    "get_device",
    "load_images",
    "load_reference",
    "load_trained",
    "make_request",
    "open_session",
    "quantize",
    "quantize_input",
    "run_reference",
    "run_tests",
]


def quantize(request: CompileRequest) -> IntegerNetwork:
    """Return the int8 network of a request: the layers that every device computes, with their integers.

    Parameters
    ----------
    request : CompileRequest
        Of `make_request`.

    Returns
    -------
    IntegerNetwork
        Takes int8 ``[H, W, C]``, which `quantize_input` makes of float32 ``[1, C, H, W]``; `run_reference` computes it.

    Raises
    ------
    QuantizationError
        There are no ranges: neither calibration images nor weights that carry them.
    UnsupportedOperatorError
        The network has what no layer here computes.
    """
    return read_relax(quantize_network(request))
