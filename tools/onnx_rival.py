"""A network in ONNX Runtime on this computer, timed in turns with thumbnet's."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.errors import ToolchainError
from thumbnet.compile.request import CompileRequest
from thumbnet.runtime_tests.session import DeviceSession, Measurement

#: Turns; each gives one time of either.
TURNS = 21
#: What float32 logits may differ by from PyTorch's, relative to the largest: it is the same network then.
TOLERANCE = 1e-4

_PACKAGES = ("onnxruntime", "onnx")


def missing_packages() -> list[str]:
    """Return what of ONNX Runtime and ONNX is not installed; the project's extra ``bench`` has both."""
    return [package for package in _PACKAGES if importlib.util.find_spec(package) is None]


class OnnxRival:
    """A network in ONNX Runtime.

    Parameters
    ----------
    request : CompileRequest
        What thumbnet compiles: the same module, for int8 calibrated on the same images (uint8 activations, int8 weights
        with a scale a channel).
    threads : int
        Of an inference.

    Raises
    ------
    ToolchainError
        The float32 network's logits are not PyTorch's.
    """

    def __init__(self, request: CompileRequest, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - an extra

        self._feed = {"image": request.calibration[0].numpy()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; it warns of each constant the export left
        with tempfile.TemporaryDirectory() as folder:
            file = _export(request, Path(folder))
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        if request.options.quantize == "none":
            self._check(request.module)

    def seconds(self) -> float:
        """Run twice and return the wall time of the second inference, as thumbnet's own are timed."""
        self._run()
        begin = time.perf_counter()
        self._run()
        return time.perf_counter() - begin

    def _run(self) -> NDArray[np.float32]:
        [logits] = self._session.run(None, self._feed)
        result: NDArray[np.float32] = logits
        return result

    def _check(self, module: torch.nn.Module) -> None:
        with torch.no_grad():
            expected = module(torch.from_numpy(self._feed["image"])).numpy()
        error = np.abs(self._run() - expected).max() / np.abs(expected).max()
        if not error <= TOLERANCE:
            raise ToolchainError(
                f"onnxruntime: its logits differ by {error:.1e} of the largest from PyTorch's, {TOLERANCE:.0e} is"
                " allowed: not the same network; install the versions of thumbnet[bench]"
            )


def make_onnx_rival(request: CompileRequest, threads: int) -> OnnxRival | None:
    """Return a network in ONNX Runtime, None where that is not installed."""
    return None if missing_packages() else OnnxRival(request, threads)


def time_in_turns(
    session: DeviceSession, image: NDArray[Any], rival: OnnxRival | None
) -> tuple[Measurement, Measurement | None]:
    """Time thumbnet's network and the rival's in turns, so that what else the computer does slows both alike.

    Parameters
    ----------
    session : DeviceSession
        With the network loaded, on this computer.
    image : ndarray
        ``[H, W, C]`` in the network's type.
    rival : OnnxRival or None
        The other; None times thumbnet's alone.
    """
    own: list[float] = []
    other: list[float] = []
    for _ in range(TURNS):
        own += session.measure(image, 1).samples
        if rival is not None:
            other.append(rival.seconds())
    timed, compared = (
        Measurement("seconds on the board", tuple(samples), 0.0, session.threads) if samples else None
        for samples in (own, other)
    )
    assert timed is not None
    return timed, compared


def _export(request: CompileRequest, folder: Path) -> Path:
    """Write a network as ONNX, quantized where the request says so."""
    exported, quantized = folder / "float32.onnx", folder / "int8.onnx"
    with _quiet():
        torch.onnx.export(
            request.module,
            (request.calibration[0],),
            str(exported),
            input_names=["image"],
            output_names=["logits"],
            dynamo=False,  # the other exporter needs a package more
        )
        if request.options.quantize == "none":
            return exported
        from onnxruntime import quantization  # noqa: PLC0415 - an extra

        quantization.quantize_static(
            str(exported),
            str(quantized),
            _reader(request.calibration),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
    return quantized


def _reader(images: Sequence[torch.Tensor]) -> Any:  # noqa: ANN401 - a class of an extra
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415 - an extra

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image.numpy()}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep advice on exporting and quantizing from the person, who can't follow it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
