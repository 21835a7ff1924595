"""The first way to int8 that keeps a network's accuracy, measured on images it was not calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.reference import run_reference
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.quantize_request import PreparedRequest, prepare_request, quantize_input, quantize_network
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.models.errors import ImageError
from thumbnet.models.image_folder import ImageSet, LabelledImage, hash_image, load_images, spread
from thumbnet.targets.board import Board
from thumbnet.tools.network import calibration_folder, load_network, make_request, to_tensor
from thumbnet.tools.network_options import NetworkFiles

#: From the cheapest to the one that changes most, by name: what each asks the compiler for.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ranges": {"ranges": "auto"},
    "equalized": {"ranges": "auto", "equalize": True},
    "corrected": {"ranges": "auto", "equalize": True, "correct_biases": True},
}
#: Of a folder that is split, the part to calibrate on at most.
CALIBRATED_PART = 4


@dataclass(frozen=True)
class SplitImages:
    """Images to calibrate on, and others to test on.

    Parameters
    ----------
    calibration, test : ImageSet
        No file's content is in both.
    """

    calibration: ImageSet
    test: ImageSet


@dataclass(frozen=True)
class Accuracy:
    """How an int8 network's classes compare with the float network's.

    Parameters
    ----------
    images : int
        Tested on.
    float_top1, int8_top1 : float or None
        Percent of them classified right; None without labels.
    agreement : float
        Percent of them to which both give one class.
    """

    images: int
    float_top1: float | None
    int8_top1: float | None
    agreement: float

    @property
    def drop(self) -> float:
        """What int8 loses in points: of top-1, or without labels of agreement with float."""
        if self.float_top1 is None or self.int8_top1 is None:
            return 100 - self.agreement
        return self.float_top1 - self.int8_top1

    def __str__(self) -> str:
        """Return it in words."""
        if self.float_top1 is None:
            return f"{self.agreement:.1f}% agree with float (no labels)"
        return f"top-1 {self.int8_top1:.1f}%, float {self.float_top1:.1f}%; {self.agreement:.1f}% agree with float"


@dataclass(frozen=True)
class Trial:
    """A way to int8, and what came of it.

    Parameters
    ----------
    method : str
        Of `METHODS`, or "as asked".
    prepared : PreparedRequest or None
        What the compiler takes; None where it can't be quantized so.
    network : IntegerNetwork or None
        All its channels.
    accuracy : Accuracy or None
        None where it was not tested.
    failure : str or None
        Why it can't be quantized so.
    """

    method: str
    prepared: PreparedRequest | None
    network: IntegerNetwork | None
    accuracy: Accuracy | None
    failure: str | None = None

    def __str__(self) -> str:
        """Return method and outcome in words."""
        return f"{self.method}: {self.failure or self.accuracy}"


def split_images(files: NetworkFiles, images: Path, limit: int, classes: int) -> SplitImages:
    """Take images to test on from a folder, and images to calibrate on: the network's own, or else from it too.

    Parameters
    ----------
    files : NetworkFiles
        Where its calibration images are, if it has some.
    images : Path
        The folder.
    limit : int
        Images to test on at most, spread evenly.
    classes : int
        Of the labels.

    Raises
    ------
    ImageError
        Nothing is left for one of both.
    """
    folder = calibration_folder(files)
    if folder is not None:
        calibration = load_images(folder, limit=files.calibration_limit, strict=files.strict)
        test = load_images(images, limit=limit, strict=files.strict, classes=classes, exclude=folder)
        return SplitImages(calibration, test)
    found = load_images(images, strict=files.strict, classes=classes)
    most = min(files.calibration_limit, max(1, len(found.images) // CALIBRATED_PART))
    first = spread(found.images, most)
    seen = {hash_image(image) for image in first}
    others = [image for image in found.images if hash_image(image) not in seen]
    if not others:
        raise ImageError(
            f"{images}: of {len(found.images)} images {len(first)} are calibrated on and no other is left to test on;"
            " give more, or calibration images of their own (--calibration DIR)"
        )
    return SplitImages(ImageSet(tuple(first)), ImageSet(tuple(spread(others, limit)), found.skipped))


class AccuracyTest:
    """Tries ways to int8 on a network.

    Parameters
    ----------
    files, board : NetworkFiles, Board
        The network, and where it is to run.
    options : CompileOptions
        How to compile, whatever the way to int8.
    split : SplitImages
        What to calibrate and to test on.
    progress : callable
        Told before each step what is done next.
    """

    def __init__(
        self,
        files: NetworkFiles,
        board: Board,
        options: CompileOptions,
        split: SplitImages,
        progress: Progress = say_nothing,
    ) -> None:
        self.files, self.board, self.options, self.split, self.progress = files, board, options, split, progress
        self.trained = load_network(files)
        with torch.no_grad():
            self._float_classes = np.array([int(self.trained.module(image).argmax()) for image in self.inputs()])
        self._labels = _labels(split.test.images, self.trained.preprocessing.label_offset)

    def inputs(self) -> Iterator[torch.Tensor]:
        """Give the images to test on as the network's inputs ``[1, C, H, W]``."""
        return (to_tensor(self.trained, image) for image in self.split.test.images)

    def run(self, method: str, **asked: Any) -> Trial:  # noqa: ANN401 - fields of CompileOptions
        """Quantize the network one way and test it; `asked` are the `CompileOptions` that make it that way."""
        request = self._request(replace(self.options, **asked))
        try:
            prepared = prepare_request(request)
            network = network_with_all_channels(prepared)
        except QuantizationError as error:
            return Trial(method, None, None, None, str(error))
        classes = []
        for number, image in enumerate(self.inputs(), 1):
            self.progress(f"{method}: testing on image {number} of {len(self.split.test.images)}")
            classes.append(int(run_reference(network, quantize_input(network, image)).argmax()))
        return Trial(method, prepared, network, self._accuracy(np.array(classes)))

    def find(self, most: float) -> tuple[Trial | None, list[Trial]]:
        """Try `METHODS` in their order until one loses no more than so many points: return it, and all tried."""
        tried = []
        for method, asked in METHODS.items():
            tried.append(self.run(method, **asked))
            accuracy = tried[-1].accuracy
            # A point in a hundred million is rounding.
            if accuracy is not None and accuracy.drop <= most + 1e-8:
                return tried[-1], tried
        return None, tried

    def _request(self, options: CompileOptions) -> CompileRequest:
        request = make_request(self.files, self.board, options, self.split.calibration)
        own = self.trained.activation_quant
        if not options.prepares and own and self.files.calibration is None:
            # What was trained with ranges keeps them.
            request = make_request(self.files, self.board, options, ImageSet(()))
        return replace(request, progress=self.progress)

    def _accuracy(self, classes: NDArray[np.int64]) -> Accuracy:
        def percent(right: NDArray[np.bool_]) -> float:
            return 100 * float(right.mean())

        top1 = (None, None)
        if self._labels is not None:
            top1 = percent(self._float_classes == self._labels), percent(classes == self._labels)
        return Accuracy(len(classes), *top1, percent(classes == self._float_classes))


def network_with_all_channels(prepared: PreparedRequest) -> IntegerNetwork:
    """Return the integer network of a request, dead channels left in: the answers are the same."""
    options = replace(prepared.request.options, keep_dead_channels=True)
    return read_relax(quantize_network(replace(prepared.request, options=options)))


def _labels(images: Sequence[LabelledImage], offset: int) -> NDArray[np.int64] | None:
    indices = [image.class_index for image in images if image.class_index is not None]
    return np.array(indices) + offset if len(indices) == len(images) else None
