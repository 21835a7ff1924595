"""`thumbnet train`: the bundled weights, made again."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from thumbnet.tools.output import check_place, json_option, print_table, replace_file, write_json
from thumbnet.tools.progress import show_steps

#: What the bundled weights have to reach on the held-out digits.
LEAST_ACCURACY = 0.97


@click.command()
@click.argument("model", default="mobilenet_v1_0.25_digits")
@click.option(
    "-o", "--output", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), callback=check_place
)
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write 100 held-out digits as PNG with labels.csv into this folder.",
)
@click.option(
    "--calibration-images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write 40 digits of the training part into this folder, to calibrate int8 with.",
)
@json_option
def train(
    model: str,
    file: Path,
    epochs: int,
    seed: int,
    images: Path | None,
    calibration_images: Path | None,
    json_file: Path | None,
) -> None:
    """Train MODEL on scikit-learn's handwritten digits and write a checkpoint.

    A fifth of the digits is held out and gives the accuracy; below 97 % nothing is written.
    """
    from thumbnet.models.errors import TrainingError
    from thumbnet.models.state_dict import write_checkpoint
    from thumbnet.models.variants import get_spec
    from thumbnet.tools.digits import check_digits, make_preprocessing, split_digits, write_digits
    from thumbnet.tools.training import train_digits

    spec = get_spec(model)
    _refuse_other(file)
    training, held_out = split_digits()
    folders = [
        (part, folder, each)
        for part, folder, each in ((held_out, images, 10), (training, calibration_images, 4))
        if folder
    ]
    for part, folder, each in folders:
        check_digits(part, folder, each)  # before the work, not after it
    began = time.monotonic()
    with show_steps(f"training {spec.name}, epochs", epochs) as shown:
        result = train_digits(spec, epochs, seed, lambda epoch, loss: shown.advance())
    seconds = time.monotonic() - began
    if result.accuracy < LEAST_ACCURACY:
        raise TrainingError(
            f"{spec.name}: {result.accuracy:.1%} of the held-out digits after {epochs} epochs, {LEAST_ACCURACY:.0%} is"
            " needed; train for more epochs"
        )
    facts = {
        "model": spec.name,
        "epochs": epochs,
        "seed": seed,
        "held_out_digits": result.held_out,
        "held_out_accuracy": round(result.accuracy, 4),
    }
    with tempfile.TemporaryDirectory(prefix="thumbnet-train-") as aside:
        made = Path(aside) / "checkpoint.pt"
        write_checkpoint(made, result.module, spec, make_preprocessing(spec.resolution), facts)
        content = made.read_bytes()
    replace_file(file, content)
    for part, folder, each in folders:
        write_digits(part, folder, each)
    print_table(
        "Trained on scikit-learn's handwritten digits",
        ["model", "held-out top-1 (%)", "held-out digits", "epochs", "seed", "checkpoint", "bytes", "seconds"],
        [
            (
                spec.name,
                f"{100 * result.accuracy:.2f}",
                result.held_out,
                epochs,
                seed,
                str(file),
                len(content),
                round(seconds, 1),
            )
        ],
    )
    write_json(json_file, {**facts, "checkpoint": str(file), "bytes": len(content), "seconds": seconds})


def _refuse_other(file: Path) -> None:
    """Refuse to replace a file that isn't a checkpoint of ours."""
    from thumbnet.models.errors import ModelError
    from thumbnet.models.state_dict import read_checkpoint

    if not file.is_file():
        return
    try:
        ours = read_checkpoint(file, file.read_bytes()).spec is not None
    except ModelError:
        ours = False
    if not ours:
        raise click.ClickException(f"{file}: exists and is no checkpoint of thumbnet's; name another file")
