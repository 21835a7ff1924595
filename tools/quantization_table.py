"""Show what each way to int8 keeps of trained networks, as they are and with their channels rescaled.

`python -m thumbnet.tools.quantization_table mobilenet_v1_0.25_128=FILE ... --images DIR` tests on images of the folder
that are not calibrated on. A rescaled network computes what the network does on all of them.
"""

# ruff: noqa: PLR0917 - click gives arguments by name

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from thumbnet.compile.request import DEFAULT_OPTIONS
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.variants import ModelSpec
from thumbnet.targets.registry import get_board
from thumbnet.tools.accuracy_budget import METHODS, AccuracyTest, Trial, split_images
from thumbnet.tools.network import load_network, to_tensor
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.rescaled_network import rescale_channels

#: Any with kernels of our own: all give the same bytes.
BOARD = "mps2_an386"


@dataclass(frozen=True)
class TableRow:
    """A network, and what came of each way to int8.

    Parameters
    ----------
    network : str
        Its name.
    rescaled : int
        Channels that were rescaled.
    tested_on, calibrated_on : int
        Images.
    trials : sequence of Trial
        In the order of `METHODS`.
    """

    network: str
    rescaled: int
    tested_on: int
    calibrated_on: int
    trials: Sequence[Trial]

    def cells(self) -> tuple[str, ...]:
        """Return it as the table has it."""
        what = f"{self.network}, {self.rescaled:,} channels rescaled" if self.rescaled else self.network
        found = next((trial.accuracy for trial in self.trials if trial.accuracy is not None), None)
        exact = "-" if found is None or found.float_top1 is None else f"{found.float_top1:.1f}%"
        return what, str(self.tested_on), exact, *map(_cell, self.trials)


def _cell(trial: Trial) -> str:
    """Return top-1 and agreement of a way to int8."""
    if trial.accuracy is None:
        return "none"
    top1, agreement = trial.accuracy.int8_top1, f"{trial.accuracy.agreement:.1f}%"
    return agreement if top1 is None else f"{top1:.1f}% ({agreement})"


def measure_rows(
    files: NetworkFiles, images: Path, limit: int, largest: float, seed: int, progress: Callable[[str], None]
) -> Iterator[TableRow]:
    """Try all ways on a network as it is, then on the same rescaled; parameters as of the command line's options."""
    trained = load_network(files)
    assert isinstance(trained.spec, ModelSpec)
    classes = trained.spec.classes - trained.preprocessing.label_offset
    split = split_images(files, images, limit, classes)

    def row(of_files: NetworkFiles, rescaled: int) -> TableRow:
        test = AccuracyTest(of_files, get_board(BOARD), DEFAULT_OPTIONS, split, progress)
        trials = [test.run(method, **asked) for method, asked in METHODS.items()]
        return TableRow(files.model, rescaled, len(split.test.images), len(split.calibration.images), trials)

    yield row(files, 0)
    seen = [*split.calibration.images, *split.test.images]
    progress("rescaling channels")
    rescaled = rescale_channels(trained.module, [to_tensor(trained, image) for image in seen], largest, seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rescaled.pt"
        write_checkpoint(file, trained.module, trained.spec, trained.preprocessing, {}, half=False)
        yield row(replace(files, weights=file), rescaled)


def _split_network(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[tuple[str, Path]]:
    pairs = [text.partition("=") for text in given]
    for text, (_name, _equals, file) in zip(given, pairs, strict=True):
        if not file:
            raise click.BadParameter(f"{text!r} is not NAME=FILE, such as mobilenet_v1_0.25_128=weights.tflite")
    return [(name, Path(file)) for name, _, file in pairs]


@click.command()
@click.argument("networks", metavar="NAME=FILE...", nargs=-1, required=True, callback=_split_network)
@click.option("--images", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--images-limit", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--largest", type=click.FloatRange(min=1), default=1000.0, show_default=True, help="Factor of a channel.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the factors.")
@json_option
def main(
    networks: list[tuple[str, Path]], images: Path, images_limit: int, largest: float, seed: int, json_file: Path | None
) -> None:
    """Print the table."""
    rows = []
    for name, file in networks:
        with show_steps(name) as shown:
            rows += measure_rows(NetworkFiles(name, file), images, images_limit, largest, seed, shown.step)
    print_table(
        "int8 top-1 (agreement with float)",
        ["network", "images", "float", *METHODS],
        [row.cells() for row in rows],
    )
    write_json(
        json_file,
        [
            {
                **{name: value for name, value in vars(row).items() if name != "trials"},
                "trials": {
                    trial.method: asdict(trial.accuracy) if trial.accuracy else {"failure": trial.failure}
                    for trial in row.trials
                },
            }
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
