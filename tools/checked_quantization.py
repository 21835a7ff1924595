"""What `thumbnet compile` quantizes: as asked, or by the first method that keeps the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.progress import Progress
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.targets.board import Board
from thumbnet.tools.accuracy_budget import AccuracyTest, SplitImages, Trial, split_images
from thumbnet.tools.network import load_network, make_request
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.quantization_goal import QuantizationGoal
from thumbnet.tools.quantization_report import QuantizationReport, print_trials, report_tested, report_untested
from thumbnet.tools.skipped_images import print_skipped


@dataclass(frozen=True)
class CheckedQuantization:
    """A request, and what was measured on the way to it.

    Parameters
    ----------
    request : CompileRequest
        To compile.
    split : SplitImages or None
        Images, where accuracy was tested.
    tried : sequence of Trial
        Ways to int8 in their order.
    report : QuantizationReport or None
        Where it was asked for.
    """

    request: CompileRequest
    split: SplitImages | None = None
    tried: Sequence[Trial] = ()
    report: QuantizationReport | None = None

    def print(self) -> None:
        """Print what was tried, and the layers."""
        if self.split is not None:
            print_skipped(self.split.test.skipped)
            print_trials(self.split, self.tried)
        if self.report is not None:
            self.report.print()

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {} if self.report is None else self.report.as_json()


def quantize_checked(
    files: NetworkFiles, board: Board, options: CompileOptions, goal: QuantizationGoal, progress: Progress
) -> CheckedQuantization:
    """Return what to compile.

    Raises
    ------
    QuantizationError
        No method keeps the accuracy.
    ModelError, CompileError
        Of the specific type for what is wrong.
    """
    progress("reading the weights")
    if goal.images is None:
        request = replace(make_request(files, board, options), progress=progress)
        return CheckedQuantization(request, report=report_untested(request, progress) if goal.report else None)
    trained = load_network(files)
    progress("looking at the images")
    classes = trained.spec.classes - trained.preprocessing.label_offset
    split = split_images(files, goal.images, goal.images_limit, classes)
    progress("running the float network")
    test = AccuracyTest(files, board, options, split, progress)
    if goal.max_drop is None:
        chosen = test.run("as asked")
        tried = [chosen]
        if chosen.failure is not None:
            raise QuantizationError(chosen.failure)
    else:
        found, tried = test.find(goal.max_drop)
        if found is None:
            raise QuantizationError(
                f"{files.model}: no method keeps int8 within {goal.max_drop:g} points of float on"
                f" {len(split.test.images)} images ({len(split.calibration.images)} others calibrated on):"
                f" {'; '.join(map(str, tried))}; allow more, or compile with --quantize none"
            )
        chosen = found
    assert chosen.prepared is not None
    progress("comparing layers")
    report = report_tested(test, chosen, tried) if goal.report else None
    return CheckedQuantization(chosen.prepared.request, split, tried, report)
