"""Prove an artifact on a device: right bytes, right answers, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.frontend.torch_to_relax import import_float
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.float_reference import run_float_layers
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.passes.match_float_layers import match_float_layers
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.quantize_request import quantize_input
from thumbnet.models.image_folder import LabelledImage
from thumbnet.models.weights import TrainedModel
from thumbnet.runtime_tests.cost_checks import check_cost
from thumbnet.runtime_tests.report import Report, Status
from thumbnet.runtime_tests.session import DeviceSession

#: float32 on two processors: sums of up to some thousand products in another order. Relative to the largest logit, or
#: to the largest value of a layer. MobileNets stay near 1e-5 in both; a wrong weight or tap does not.
FLOAT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Answers:
    """Per image: its name; what the device, the reference and PyTorch say, ``[images, classes]``; the right classes."""

    names: tuple[str, ...]
    device: NDArray[Any]
    reference: NDArray[Any]
    pytorch: NDArray[np.float32]
    labels: NDArray[np.int64] | None


def run_tests(
    artifact: Artifact,
    session: DeviceSession,
    trained: TrainedModel,
    images: Sequence[LabelledImage],
    *,
    advance: Callable[[], None] = lambda: None,
    progress: Progress = say_nothing,
    report: Report | None = None,
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
    advance : callable
        Called after each image.
    progress : callable
        Told before each step what is done next.
    report : Report or None
        An empty one to fill, so that the checks made so far are there wherever this ends.

    Raises
    ------
    SessionError
        The device failed; that is not the network's fault, and no check.
    """
    report = Report() if report is None else report
    report.values.update(
        model=artifact.manifest["model"],
        device=session.device.name,
        board=session.device.board.name,
        core=session.device.board.core,
        dtype=artifact.manifest["dtype"],
        images=len(images),
    )
    progress("loading the network")
    session.load(artifact)
    if session.setup_fault is not None:
        report.add("set-up of the board", Status.FAILED, session.setup_fault)
    progress("running images")
    inputs = _Inputs(artifact, trained)
    answers = _collect(session, inputs, trained, images, advance)
    progress("running golden vectors")
    wrong_vector = _check_golden(report, artifact, session)
    _check_varies(report, answers)
    wrong_image = _check_reference(report, answers, inputs)
    progress("comparing layers")
    _check_layers(report, session, inputs, _choose_suspect(artifact, inputs, images, wrong_image, wrong_vector))
    _check_agreement(report, answers)
    _check_labels(report, answers)
    progress("measuring")
    check_cost(report, session, inputs.of(trained.preprocessing.pixels(images[0].path)))
    return report


@dataclass(frozen=True)
class _Suspect:
    """What the layers are compared on: an input whose output is wrong, where there is one."""

    name: str
    image: NDArray[Any]
    has_wrong_output: bool


class _Inputs:
    """From pixels to the artifact's input, and from that to the expected output."""

    def __init__(self, artifact: Artifact, trained: TrainedModel) -> None:
        self.trained = trained
        self.has_layers = bool(artifact.manifest["layers"])
        integer = artifact.manifest["dtype"] == "int8"
        self.network = load_reference(artifact) if integer else None

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        tensor = self.trained.preprocessing.to_float(pixels)
        if self.network is not None:
            return quantize_input(self.network, tensor)
        rows: NDArray[np.float32] = np.ascontiguousarray(tensor[0].permute(1, 2, 0).numpy())
        return rows

    def float_network(self) -> FloatNetwork:
        example = torch.zeros(1, *self.trained.spec.input_shape)
        return match_float_layers(import_float(self.trained.module, example))

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
    advance: Callable[[], None],
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
        advance()
    known = np.array(labels) if len(labels) == len(images) else None
    names = tuple(labelled.path.name for labelled in images)
    return _Answers(names, np.stack(device), np.stack(reference), np.stack(pytorch), known)


def _check_golden(report: Report, artifact: Artifact, session: DeviceSession) -> int | None:
    """Return the first vector whose output is wrong."""
    name = "golden vectors"
    if artifact.manifest["dtype"] != "int8":
        report.add(name, Status.SKIPPED, "a float32 artifact has none")
        return None
    inputs, outputs = artifact.golden() if "golden" in artifact.manifest else ((), ())
    if len(inputs) == 0 or len(inputs) != len(outputs):
        detail = f"{len(inputs)} inputs and {len(outputs)} outputs prove nothing; compile the network again"
        report.add(name, Status.FAILED, detail)
        return None
    wrong = [index for index in range(len(inputs)) if not np.array_equal(session.run(inputs[index]), outputs[index])]
    detail = f"{len(inputs) - len(wrong)} of {len(inputs)} equal"
    report.add(name, Status.FAILED if wrong else Status.PASSED, detail)
    return wrong[0] if wrong else None


def _check_varies(report: Report, answers: _Answers) -> None:
    if len(answers.device) == 1:
        report.add("output varies with the input", Status.SKIPPED, "needs two images")
        return
    varies = bool((answers.device != answers.device[0]).any())
    detail = "yes" if varies else "every image gives the same output: nothing below proves anything"
    report.add("output varies with the input", Status.PASSED if varies else Status.FAILED, detail)


def _check_reference(report: Report, answers: _Answers, inputs: _Inputs) -> int | None:
    """Return the first image whose output is wrong."""
    if inputs.network is None:
        return _check_close(report, answers)
    equal = (answers.device == answers.reference).all(axis=1)
    report.values["equal_to_reference"] = bool(equal.all())
    detail = f"{int(equal.sum())} of {len(equal)} images give the reference's bytes"
    if equal.all():
        report.add("equal to the reference", Status.PASSED, detail)
        return None
    first = int(np.argmin(equal))
    report.add("equal to the reference", Status.FAILED, f"{detail}; the first that doesn't is {answers.names[first]}")
    return first


def _check_close(report: Report, answers: _Answers) -> int | None:
    """Return the image that is furthest off, where that is too far."""
    errors = [_relative_error(*pair) for pair in zip(answers.device, answers.reference, strict=True)]
    image = int(np.argmax(errors))
    close = errors[image] <= FLOAT_TOLERANCE
    report.values.update(equal_to_reference=None, largest_relative_error=errors[image])
    detail = f"largest difference {errors[image]:.2e} of the largest logit; {FLOAT_TOLERANCE:.0e} is allowed"
    if not close:
        detail += f"; {_largest_difference(answers.device[image], answers.reference[image])} ({answers.names[image]})"
    report.add("close to PyTorch float", Status.PASSED if close else Status.FAILED, detail)
    return None if close else image


def _relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest magnitude expected; infinite where there is no number."""
    difference = np.abs(found.reshape(expected.shape).astype(np.float64) - expected).max()
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(difference / largest) if np.isfinite(difference) else float("inf")


def _largest_difference(found: NDArray[Any], expected: NDArray[Any]) -> str:
    device = found.reshape(expected.shape)
    differences = np.nan_to_num(np.abs(device.astype(np.float64) - expected), nan=np.inf)
    return _difference(np.unravel_index(int(np.argmax(differences)), expected.shape), device, expected)


def _choose_suspect(
    artifact: Artifact,
    inputs: _Inputs,
    images: Sequence[LabelledImage],
    wrong_image: int | None,
    wrong_vector: int | None,
) -> _Suspect:
    if wrong_image is None and wrong_vector is not None:
        return _Suspect(f"golden vector {wrong_vector}", artifact.golden()[0][wrong_vector], True)
    labelled = images[wrong_image or 0]
    image = inputs.of(inputs.trained.preprocessing.pixels(labelled.path))
    return _Suspect(labelled.path.name, image, wrong_image is not None)


def _check_layers(report: Report, session: DeviceSession, inputs: _Inputs, suspect: _Suspect) -> None:
    if inputs.network is None:
        _check_float_layers(report, session, inputs, suspect)
        return
    expected = run_reference_layers(inputs.network, suspect.image)
    found = session.run_layers(suspect.image)
    compared = [name for name in expected if name in found]
    wrong = [name for name in compared if not np.array_equal(found[name].reshape(-1), expected[name].reshape(-1))]
    report.values["layers_compared"] = len(compared)
    report.values["layers_different"] = wrong
    detail = f"{len(compared) - len(wrong)} of {len(compared)} equal on {suspect.name}"
    if wrong:
        first = wrong[0]
        detail += f"; the first different one is {first}: {_first_difference(found[first], expected[first])}"
    elif suspect.has_wrong_output:
        detail += ", whose output is wrong: one by one the device computes the layers right"
    report.add("every layer equal", Status.FAILED if wrong or not compared else Status.PASSED, detail)


def _check_float_layers(report: Report, session: DeviceSession, inputs: _Inputs, suspect: _Suspect) -> None:
    """Compare what each stage gives with the network's float reference, and say which is furthest off."""
    name = "every layer close"
    if not inputs.has_layers:
        report.add(name, Status.SKIPPED, "its layers are TVM's own, fused: they don't give their outputs")
        return
    expected = run_float_layers(inputs.float_network(), suspect.image)
    found = session.run_layers(suspect.image)
    compared = [layer for layer in expected if layer in found]
    errors = {layer: _relative_error(found[layer], expected[layer]) for layer in compared}
    wrong = [layer for layer in compared if errors[layer] > FLOAT_TOLERANCE]
    worst = max(compared, key=lambda layer: errors[layer], default=None)
    report.values.update(
        layers_compared=len(compared),
        layers_different=wrong,
        worst_layer=worst,
        worst_layer_error=None if worst is None else errors[worst],
    )
    within = f"within {FLOAT_TOLERANCE:.0e} of their largest value on {suspect.name}"
    detail = f"{len(compared) - len(wrong)} of {len(compared)} {within}"
    if worst is not None:
        detail += f"; the worst is {worst}: {errors[worst]:.2e}"
    if wrong:
        first = wrong[0]
        detail += f"; the first too far off is {first}: {_largest_difference(found[first], expected[first])}"
    elif suspect.has_wrong_output:
        detail += ", whose output is wrong: one by one the device computes the layers right"
    report.add(name, Status.FAILED if wrong or not compared else Status.PASSED, detail)


def _first_difference(found: NDArray[Any], expected: NDArray[Any]) -> str:
    if found.size != expected.size:
        return f"{found.size} values on the device, {expected.size} in the reference"
    device = found.reshape(expected.shape)
    element = np.unravel_index(int(np.argmax(device != expected)), expected.shape)
    return _difference(element, device, expected)


def _difference(element: Sequence[Any], device: NDArray[Any], reference: NDArray[Any]) -> str:
    place = [int(index) for index in element]
    return f"element {place} is {device[tuple(place)]} on the device, {reference[tuple(place)]} in the reference"


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
