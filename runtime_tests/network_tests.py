"""Prove an artifact on a device: right bytes, right answers, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import REFERENCE_FILE, quantize_input
from thumbnet.compile.emit.stack_usage import STACK_KIND
from thumbnet.compile.network.network_file import load_network
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.models.preprocessing import LabelledImage
from thumbnet.models.weights import TrainedModel
from thumbnet.runtime_tests.report import Report, Status
from thumbnet.runtime_tests.session import DeviceSession, MemoryUse

#: Inferences of one image for the cost of one inference.
MEASURED_RUNS = 3
#: float32 on two processors: sums in another order. Relative to the largest logit.
FLOAT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Answers:
    """Per image: what the device, the reference and PyTorch say, ``[images, classes]``, and the right classes."""

    device: NDArray[Any]
    reference: NDArray[Any]
    pytorch: NDArray[np.float32]
    labels: NDArray[np.int64] | None


def run_tests(
    artifact: Artifact,
    session: DeviceSession,
    trained: TrainedModel,
    images: Sequence[LabelledImage],
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Load an artifact on a device and run all checks.

    Parameters
    ----------
    artifact : Artifact
        What to test.
    session : DeviceSession
        An open device.
    trained : TrainedModel
        The float network the artifact was made from, and its preprocessing.
    images : sequence of LabelledImage
        Images to run, at least one.
    progress : callable
        Called after each image.

    Raises
    ------
    SessionError
        The device failed; that is not the network's fault and makes no report.
    """
    report = Report()
    report.values.update(
        model=artifact.manifest["model"],
        device=session.device.name,
        board=session.device.board.name,
        core=session.device.board.core,
        dtype=artifact.manifest["dtype"],
        images=len(images),
    )
    session.load(artifact)
    inputs = _Inputs(artifact, trained)
    answers = _collect(session, inputs, trained, images, progress)
    _check_golden(report, artifact, session)
    _check_varies(report, answers)
    _check_reference(report, answers, inputs)
    _check_layers(report, session, inputs, images[0], trained)
    _check_agreement(report, answers)
    _check_labels(report, answers)
    _measure(report, session, inputs.of(trained.preprocessing.pixels(images[0].path)))
    return report


class _Inputs:
    """From pixels to the artifact's input, and from that to the expected output."""

    def __init__(self, artifact: Artifact, trained: TrainedModel) -> None:
        self.trained = trained
        integer = artifact.manifest["dtype"] == "int8"
        self.network = load_network(artifact.folder / REFERENCE_FILE) if integer else None

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        tensor = self.trained.preprocessing.to_float(pixels)
        if self.network is not None:
            return quantize_input(self.network, tensor)
        rows: NDArray[np.float32] = np.ascontiguousarray(tensor[0].permute(1, 2, 0).numpy())
        return rows

    def pytorch(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits: NDArray[np.float32] = self.trained.module(self.trained.preprocessing.to_float(pixels))[0].numpy()
        return logits

    def reference(self, image: NDArray[Any], pytorch: NDArray[np.float32]) -> NDArray[Any]:
        return pytorch if self.network is None else run_reference(self.network, image)


def _collect(
    session: DeviceSession,
    inputs: _Inputs,
    trained: TrainedModel,
    images: Sequence[LabelledImage],
    progress: Callable[[], None],
) -> _Answers:
    device, reference, pytorch, labels = [], [], [], []
    for labelled in images:
        pixels = trained.preprocessing.pixels(labelled.path)
        image = inputs.of(pixels)
        device.append(session.run(image))
        pytorch.append(inputs.pytorch(pixels))
        reference.append(inputs.reference(image, pytorch[-1]))
        if labelled.class_index is not None:
            labels.append(labelled.class_index + trained.preprocessing.label_offset)
        progress()
    known = np.array(labels) if len(labels) == len(images) else None
    return _Answers(np.stack(device), np.stack(reference), np.stack(pytorch), known)


def _check_golden(report: Report, artifact: Artifact, session: DeviceSession) -> None:
    if "golden" not in artifact.manifest:
        report.add("golden vectors", Status.SKIPPED, "a float32 artifact has none")
        return
    inputs, outputs = artifact.golden()
    wrong = [index for index in range(len(inputs)) if not np.array_equal(session.run(inputs[index]), outputs[index])]
    detail = f"{len(inputs) - len(wrong)} of {len(inputs)} equal"
    report.add("golden vectors", Status.FAILED if wrong else Status.PASSED, detail)


def _check_varies(report: Report, answers: _Answers) -> None:
    if len(answers.device) == 1:
        report.add("output varies with the input", Status.SKIPPED, "needs two images")
        return
    varies = bool((answers.device != answers.device[0]).any())
    detail = "yes" if varies else "every image gives the same output: nothing below proves anything"
    report.add("output varies with the input", Status.PASSED if varies else Status.FAILED, detail)


def _check_reference(report: Report, answers: _Answers, inputs: _Inputs) -> None:
    if inputs.network is None:
        error = np.abs(answers.device - answers.reference).max() / np.abs(answers.reference).max()
        close = bool(error <= FLOAT_TOLERANCE)
        report.values.update(equal_to_reference=None, largest_relative_error=float(error))
        detail = f"largest difference {error:.2e} of the largest logit; {FLOAT_TOLERANCE:.0e} is allowed"
        report.add("close to PyTorch float", Status.PASSED if close else Status.FAILED, detail)
        return
    equal = (answers.device == answers.reference).all(axis=1)
    report.values["equal_to_reference"] = bool(equal.all())
    detail = f"{int(equal.sum())} of {len(equal)} images give the reference's bytes"
    report.add("equal to the reference", Status.PASSED if equal.all() else Status.FAILED, detail)


def _check_layers(
    report: Report, session: DeviceSession, inputs: _Inputs, labelled: LabelledImage, trained: TrainedModel
) -> None:
    if inputs.network is None:
        report.add("every layer equal", Status.SKIPPED, "float32 has no exact reference")
        return
    image = inputs.of(trained.preprocessing.pixels(labelled.path))
    expected = run_reference_layers(inputs.network, image)
    found = session.run_layers(image)
    compared = [name for name in expected if name in found]
    wrong = [name for name in compared if not np.array_equal(found[name].reshape(-1), expected[name].reshape(-1))]
    report.values["layers_compared"] = len(compared)
    report.values["layers_different"] = wrong
    detail = f"{len(compared) - len(wrong)} of {len(compared)} equal on {labelled.path.name}"
    if wrong:
        detail += f"; the first different one is {wrong[0]}"
    report.add("every layer equal", Status.FAILED if wrong or not compared else Status.PASSED, detail)


def _check_agreement(report: Report, answers: _Answers) -> None:
    agreement = float(np.mean(answers.device.argmax(axis=1) == answers.pytorch.argmax(axis=1)))
    report.values["agreement_with_pytorch"] = agreement
    # int8 moves an answer now and then, more often where the float network hardly knew; below half is no rounding.
    status = Status.PASSED if agreement >= 0.5 else Status.FAILED
    report.add("agreement with PyTorch float", status, f"{agreement:.1%} of the images get the same class")


def _check_labels(report: Report, answers: _Answers) -> None:
    report.values.update(top1=None, top5=None, pytorch_top1=None)
    if answers.labels is None:
        report.add("top-1 and top-5", Status.SKIPPED, "the folder of images has no labels.csv")
        return
    classes = answers.device.shape[1]
    if answers.labels.max() >= classes:
        detail = f"the labels go up to class {answers.labels.max()}, the network has {classes}: another task's images"
        report.add("top-1 and top-5", Status.SKIPPED, detail)
        return
    top1, top5 = _top(answers.device, answers.labels, 1), _top(answers.device, answers.labels, 5)
    pytorch = _top(answers.pytorch, answers.labels, 1)
    report.values.update(top1=top1, top5=top5, pytorch_top1=pytorch)
    report.values["top1_ties_at_random"] = _top1_ties_at_random(answers.device, answers.labels)
    # Three standard errors of the difference, and never less than one image.
    allowed = max(3 * np.sqrt(max(1 - top1, 0.02) * 0.1 / len(answers.labels)), 1 / len(answers.labels))
    status = Status.PASSED if top1 >= pytorch - allowed else Status.FAILED
    detail = f"top-1 {top1:.1%}, top-5 {top5:.1%}; PyTorch float top-1 {pytorch:.1%}"
    report.add("top-1 and top-5", status, detail)


def _top(scores: NDArray[Any], labels: NDArray[np.int64], count: int) -> float:
    # A stable sort of the negated scores puts the lowest class first where scores tie, as argmax does.
    ranked = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
    return float(np.mean((ranked == labels[:, None]).any(axis=1)))


def _top1_ties_at_random(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Return the top-1 to expect if ties for the first place, common among int8 logits, were broken at random."""
    first = scores == scores.max(axis=1, keepdims=True)
    return float(np.mean(first[np.arange(len(labels)), labels] / first.sum(axis=1)))


def _measure(report: Report, session: DeviceSession, image: NDArray[Any]) -> None:
    measured = session.measure(image, MEASURED_RUNS)
    memory = session.memory_use()
    middle = float(np.median(measured.samples))
    instructions = measured.kind == "instructions"
    report.values.update(
        measurement={"kind": measured.kind, "samples": list(measured.samples), "error": measured.error},
        instructions_per_inference=int(middle) if instructions else None,
        cycles_per_inference=middle if measured.kind == "cycles" else None,
        seconds_per_inference=middle if measured.kind == "seconds on the board" else None,
        **asdict(memory),
    )
    unit = f"{middle:,.0f} {measured.kind}" if measured.kind != "seconds on the board" else f"{middle:.6f} seconds"
    error = "exact" if measured.error == 0 else f"error at most {measured.error:g}"
    report.add("cost of one inference", Status.PASSED, f"{unit} ({error})" if instructions else f"{unit} on the board")
    report.add("memory", Status.PASSED, f"RAM {_bytes(memory.ram_bytes)}, flash {_bytes(memory.flash_bytes)}")
    _check_stack(report, memory)


def _check_stack(report: Report, memory: MemoryUse) -> None:
    """Compare the high-water mark with the worst case, and both with the artifact's: no run may surprise anybody."""
    worst, measured, limit = memory.stack_bytes, memory.stack_measured_bytes, memory.stack_limit_bytes
    report.values["stack_kind"] = None if worst is None else STACK_KIND
    if measured is None:
        report.add("stack", Status.SKIPPED, "neither bounded nor measured on boards that run Linux")
        return
    known = f"unknown ({memory.stack_unknown_because});" if worst is None else f"{worst:,} bytes,"
    detail = f"worst case {known} high-water mark {measured:,} bytes"
    if limit is not None and (worst is None or max(worst, measured) > limit):
        report.add("stack", Status.FAILED, f"{detail}; the artifact's manifest says at most {limit:,} bytes")
    elif worst is None:
        report.add("stack", Status.SKIPPED, detail)
    else:
        report.add("stack", Status.PASSED if measured <= worst else Status.FAILED, detail)


def _bytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,} bytes"
