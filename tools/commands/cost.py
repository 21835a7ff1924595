"""`thumbnet cost`: multiply-accumulates, parameters and memory of a network."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json


@click.command()
@click.argument("model")
@click.option("--classes", type=click.IntRange(min=1), help="Number of classes, if not the model's usual one.")
@json_option
def cost(model: str, classes: int | None, json_file: Path | None) -> None:
    """Count what one inference of MODEL costs, beside the same network with standard convolutions.

    The sums of parameters leave batch norms out, as the papers do; compiled, they are a bias a channel.
    """
    from thumbnet.models.cost import compute_cost
    from thumbnet.models.variants import get_spec

    spec = get_spec(model)
    if classes is not None:
        spec = dataclasses.replace(spec, classes=classes)
    result = compute_cost(spec)
    print_table(
        f"{spec.name}: one inference",
        ["layer", "kind", "stride", "output", "MACs", "parameters", "standard: MACs", "parameters"],
        [
            (
                layer.name,
                f"{layer.kind} {layer.kernel}x{layer.kernel}" if layer.kind != "linear" else layer.kind,
                layer.stride,
                "x".join(str(extent) for extent in layer.output_shape),
                layer.macs,
                layer.parameters,
                layer.standard_macs,
                layer.standard_parameters,
            )
            for layer in result.layers
        ],
        footer=(
            "all", "", "", "", result.macs, result.parameters, result.standard_macs, result.standard_parameters
        ),
    )  # fmt: skip
    print_table(
        "Activations: elements (bytes in int8, times 4 in float32)",
        ["what", "elements", "at layer"],
        [
            ("largest tensor", result.largest_activation[1], result.largest_activation[0]),
            ("most alive at once, layer by layer", result.largest_alive[1], result.largest_alive[0]),
        ],
    )
    write_json(
        json_file,
        {
            "model": spec.name,
            "classes": spec.classes,
            "macs": result.macs,
            "parameters": result.parameters,
            "standard_macs": result.standard_macs,
            "standard_parameters": result.standard_parameters,
            "largest_activation": _describe(result.largest_activation),
            "largest_alive": _describe(result.largest_alive),
            "layers": [dataclasses.asdict(layer) for layer in result.layers],
        },
    )


def _describe(entry: tuple[str, int]) -> dict[str, object]:
    return {"layer": entry[0], "elements": entry[1]}
