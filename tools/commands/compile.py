"""`thumbnet compile`: a trained network to an artifact for one board."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from thumbnet.tools.output import json_option, print_table, write_json

keep_dead_channels_option = click.option(
    "--keep-dead-channels",
    is_flag=True,
    help="Leave channels in that are proven to have no influence on the answer, whatever the image.",
)


@click.command()
@click.argument("model")
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Trained weights.")
@click.option("--board", required=True, help="Type of board, see `thumbnet boards`.")
@click.option("--quantize", type=click.Choice(["int8", "none"]), default="int8", show_default=True)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of images that give int8's ranges; weights from a quantization-aware file bring their own, which"
    " this replaces.",
)
@click.option("--calibration-limit", type=click.IntRange(min=1), default=32, show_default=True, help="Images at most.")
@click.option("--tuning", type=click.Path(path_type=Path, file_okay=False), help="Records of `thumbnet tune`.")
@click.option("--classes", type=click.IntRange(min=1), help="Number of classes the weights must have.")
@keep_dead_channels_option
@click.option(
    "--ram-limit",
    type=click.IntRange(min=1),
    help="Microcontrollers: bytes the arena may take at most; the fewest instructions under it are chosen. Without it,"
    " the smallest arena is taken whose predicted instructions are within 7 % of the fastest's.",
)
@click.option(
    "--stream-input",
    is_flag=True,
    help="Microcontrollers: the program hands over the image row by row (a camera), so that it takes no RAM.",
)
@click.option("--pareto", is_flag=True, help="Microcontrollers: print what other limits on RAM would give.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
@json_option
def compile(
    model: str,
    weights: Path | None,
    board: str,
    quantize: Literal["int8", "none"],
    calibration: Path | None,
    calibration_limit: int,
    tuning: Path | None,
    classes: int | None,
    keep_dead_channels: bool,
    ram_limit: int | None,
    stream_input: bool,
    pareto: bool,
    output: Path,
    json_file: Path | None,
) -> None:
    """Compile MODEL for a board into the folder OUTPUT.

    Microcontrollers get plain C sources, boards that run Linux a shared library. What the sources will take on the
    board is told exactly where its compiler is installed: arena, worst-case stack, constants, code.
    """
    from thumbnet.compile.errors import CompileError
    from thumbnet.targets.registry import get_board

    target = get_board(board)
    for option, given in (("--ram-limit", ram_limit), ("--pareto", pareto)):
        if given and target.family != "cortex-m":
            raise CompileError(f"{board}: {option} is for microcontrollers; leave it out")

    from thumbnet.tools.network import compile_network

    artifact = compile_network(
        model,
        target,
        output,
        weights=weights,
        quantize=quantize,
        calibration=calibration,
        calibration_limit=calibration_limit,
        tuning=tuning,
        classes=classes,
        keep_dead_channels=keep_dead_channels,
        ram_limit=ram_limit,
        stream_input=stream_input,
    )
    manifest = artifact.manifest
    rows: list[tuple[str, object]] = [
        ("model", manifest["model"]),
        ("board", f"{manifest['board']} ({manifest['core']})"),
        ("artifact", {"c": "C sources", "library": "shared library"}[manifest["kind"]]),
        ("number type", manifest["dtype"]),
        ("multiply-accumulates", manifest.get("macs")),
        ("dead channels", _dead_channels(manifest.get("dead_channels"))),
        ("layers", len(manifest["layers"]) or None),
        (
            "arena, without the input (bytes)" if stream_input else "arena, input included (bytes)",
            manifest.get("arena_bytes"),
        ),
        ("instructions an inference (predicted)", manifest.get("predicted_instructions")),
        *_footprint(manifest),
        ("ranges", manifest["quantization"]["ranges"]),
        ("folder", output),
    ]
    print_table("Compiled", ["what", "value"], [(key, _text(value)) for key, value in rows if value is not None])
    if pareto:
        _print_choices(manifest.get("ram_choices", ()), manifest.get("arena_bytes"))
    write_json(json_file, {**manifest, "folder": str(output)})


def _print_choices(choices: Sequence[Mapping[str, int]], taken: int | None) -> None:
    """Print the Pareto front, of points less than a twentieth apart one; all are in the manifest."""
    rows: list[tuple[str, ...]] = []
    shown = 0.0
    for choice in choices:
        arena, instructions = choice["arena_bytes"], choice["predicted_instructions"]
        if rows and arena > 0.95 * shown and arena != taken and choice is not choices[-1]:
            continue
        shown = arena
        more = instructions / choices[0]["predicted_instructions"] - 1
        rows.append((f"{arena:,}", f"{instructions:,}", f"+{more:.1%}", "this one" if arena == taken else ""))
    columns = ["--ram-limit (bytes)", "instructions (predicted)", "to the fastest", ""]
    print_table("What limits on the arena give", columns, rows)


def _footprint(manifest: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what a microcontroller's memories have to hold beside the arena, as far as it is known."""
    built = manifest.get("footprint", {"unknown_because": "not built"})
    if "code_bytes" not in built:
        unknown = built["unknown_because"] if manifest["kind"] == "c" else None
        return [("constants (bytes)", manifest.get("constant_bytes")), ("stack and code (bytes)", unknown)]
    stack = built["stack_bytes"]
    return [
        ("stack, worst case (bytes)", f"unknown: {built['stack_unknown_because']}" if stack is None else stack),
        ("constants (bytes)", built["constant_bytes"]),
        ("code (bytes)", f"{built['code_bytes']:,}, and {built['library_bytes']:,} of the C library"),
    ]


def _dead_channels(entry: Any) -> str | None:  # noqa: ANN401 - as in the manifest: None, "kept" or what was removed
    if entry is None or isinstance(entry, str):
        return entry
    removed = entry["removed"]
    if not removed["channels"]:
        return "none found"
    return (
        f"{removed['channels']:,} of {removed['before']['channels']:,} removed:"
        f" {removed['macs']:,} MACs, {removed['constant_bytes']:,} bytes"
    )


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
