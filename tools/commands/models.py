"""`thumbnet models`: which networks have a name."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json


@click.command()
@json_option
def models(json_file: Path | None) -> None:
    """List the networks by name.

    Any other width and resolution works too, as mobilenet_v1_WIDTH_RESOLUTION or mobilenet_v2_WIDTH_RESOLUTION; of
    images that are no squares the resolution is ROWSxCOLUMNS.
    """
    from thumbnet.models.variants import BUNDLED, list_specs
    from thumbnet.models.weights import find_bundled

    bundled = {spec.name for spec in BUNDLED if find_bundled(spec).is_file()}
    specs = list_specs()
    print_table(
        "MobileNets; top-1 on ImageNet as published for the float network",
        ["name", "version", "width", "resolution", "channels", "classes", "top-1 (%)", "weights"],
        [
            (
                spec.name,
                spec.version,
                spec.width_multiplier,
                spec.resolution,
                spec.input_channels,
                spec.classes,
                spec.published_top1,
                "bundled" if spec.name in bundled else "--weights FILE",
            )
            for spec in specs
        ],
    )
    write_json(json_file, [{**dataclasses.asdict(spec), "bundled": spec.name in bundled} for spec in specs])
