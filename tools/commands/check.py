"""`thumbnet check`: whether a network is run as it was trained."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thumbnet.tools.network_options import NetworkFiles, trained_network
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.skipped_images import print_skipped, strict_option

if TYPE_CHECKING:
    from thumbnet.models.conventions import Conventions
    from thumbnet.tools.convention_search import SearchResult, Trial

#: Rows of the table; all settings are in the JSON.
SHOWN = 12


@click.command()
@trained_network
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of images with labels.csv (file,class_index), or a folder a class.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Images at most, spread evenly over the folder.",
)
@strict_option
@json_option
def check(files: NetworkFiles, images: Path, limit: int, strict: bool, json_file: Path | None) -> None:
    """Find the conventions under which MODEL's float answers fit labelled images best.

    A weights file does not say how pixels were scaled, whether images were squashed or cropped, whether class 0 is the
    background, or what padding, batch norm epsilon and activation were trained with. The neighbours of what is given
    or assumed are tried, and the options of the best are printed.
    """
    if files.is_own:
        raise click.BadArgumentUsage(f"{files.model} says its conventions itself; networks by name are checked")
    with show_steps(f"checking {files.model}") as shown:
        shown.step("loading PyTorch")
        from thumbnet.models.image_folder import load_images
        from thumbnet.tools.convention_search import Setting, search_conventions
        from thumbnet.tools.network import load_network

        loaded = load_network(files)
        classes = loaded.spec.classes - loaded.preprocessing.label_offset
        shown.step("looking at the images")
        found = load_images(images, limit=limit, strict=strict, classes=classes)
    print_skipped(found.skipped)
    with show_steps(f"checking {files.model}") as shown:
        shown.step("trying the first setting")
        result = search_conventions(files, found.images, lambda count: shown.step(f"{count} settings tried"))
    skipped = f", {len(found.skipped)} skipped" if found.skipped else ""
    print_table(
        f"{files.model}, float: top-1 on {len(found.images)} images{skipped}, {len(result.trials)} settings tried",
        ["top-1", "behind the best", "pixel to value", "image to input", "class 0", "network", ""],
        [_row(result, trial) for trial in _choose_shown(result)],
    )
    # Options are told from what the file alone is understood as.
    alone = load_network(NetworkFiles(files.model, files.weights, files.weights_key, files.classes))
    options = result.best.setting.options_from(Setting.of(alone))
    click.echo(_judge(result, options))
    write_json(json_file, {"model": files.model, "skipped_images": list(found.skipped), **_as_json(result, options)})


def _choose_shown(result: SearchResult) -> list[Trial]:
    """Return the first rows, and how the network is loaded in any case."""
    rows = list(result.trials[:SHOWN])
    return rows if result.loaded in rows else [*rows, result.loaded]


def _row(result: SearchResult, trial: Trial) -> tuple[str, ...]:
    lead, error = result.best.lead_over(trial)
    preprocessing = trial.setting.preprocessing
    return (
        f"{trial.top1:.1%}",
        "" if trial is result.best else f"{lead:.1%} \u00b1 {error:.1%}",
        preprocessing.describe_scaling(),
        preprocessing.describe_geometry(),
        "background" if preprocessing.label_offset else "first label",
        _describe_network(result, trial.setting.conventions),
        "as loaded now" if trial is result.loaded else "",
    )


def _describe_network(result: SearchResult, conventions: Conventions) -> str:
    if all(trial.setting.conventions == conventions for trial in result.trials):
        return "as in the file"
    return f"padding {conventions.padding}, epsilon {conventions.bn_epsilon:g}, {conventions.activation}"


def _judge(result: SearchResult, options: str) -> str:
    """Say which setting fits, how sure that is, and how to ask for it."""
    images = len(result.best.correct)
    give = f"The best's options: {options}" if options else "The best needs no options"
    if result.best is result.loaded:
        equals = sum(not result.is_beyond_chance(trial) for trial in result.trials[1:])
        return (
            f"The network fits the labels best as it is loaded now; {equals} of {len(result.trials) - 1} other settings"
            f" can't be told from it by {images} images. {give}."
        )
    lead, error = result.best.lead_over(result.loaded)
    ahead = f"The best setting is {lead:.1%} \u00b1 {error:.1%} ahead of how the network is loaded now"
    if result.is_beyond_chance(result.loaded):
        return f"{ahead}: beyond the sampling error of {images} images. {give}."
    return f"{ahead}: within the sampling error of {images} images; give more to tell. {give}."


def _as_json(result: SearchResult, options: str) -> dict[str, Any]:
    lead, error = result.best.lead_over(result.loaded)
    return {
        "images": len(result.best.correct),
        "lead": lead,
        "lead_standard_error": error,
        "beyond_sampling_error": result.is_beyond_chance(result.loaded),
        "options": options,
        "settings": [
            {"top1": trial.top1, "as_loaded": trial is result.loaded, **trial.setting.as_json()}
            for trial in result.trials
        ],
    }
