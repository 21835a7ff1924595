"""`thumbnet compile`: a trained network to an artifact for one board."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from thumbnet.compile.request import CompileOptions, check_options
from thumbnet.tools.board_options import board_file_option, chosen_board
from thumbnet.tools.commands.devices import devices_option
from thumbnet.tools.network_options import NetworkFiles, compile_options, network_files
from thumbnet.tools.output import check_place, json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.quantization_goal import QuantizationGoal, check_goal
from thumbnet.tools.skipped_images import print_skipped


def _check_points(_: click.Context, __: click.Parameter, points: float | None) -> float | None:
    # No comparison with a NaN holds.
    if points is not None and not 0 <= points <= 100:
        raise click.BadParameter(f"{points:g} is not a number of points from 0 to 100")
    return points


@click.command()
@network_files
@click.option("--board", help="Type of board, see `thumbnet boards`; of your own, as devices.toml has it.")
@board_file_option
@devices_option
@click.option(
    "--arena-memory",
    metavar="NAME",
    help="Microcontrollers: the memory for the arena, as `thumbnet boards` names them. Without it, the first of the"
    " board's order in which it fits.",
)
@compile_options()
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    callback=_check_points,
    help="Points of top-1 that int8 may lose on --images, without labels of agreement with float: the methods are tried"
    " in their order (plain, ranges, equalized, corrected) until one keeps it, and the compile fails where none does.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of images for --max-drop and --quantization-report, with labels.csv (file,class_index) or a folder a"
    " class where the labels are known. None is tested on that is calibrated on: without --calibration the folder is"
    " split.",
)
@click.option(
    "--images-limit",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Images tested on at most, spread evenly over the folder.",
)
@click.option(
    "--quantization-report",
    "report_file",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=check_place,
    help="Write how far int8 takes each layer from float32, its range and where that is from, as JSON, and print it.",
)
@click.option("--pareto", is_flag=True, help="Print what other limits on RAM would give.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
@json_option
def compile(
    files: NetworkFiles,
    options: CompileOptions,
    board: str | None,
    board_file: Path | None,
    devices_file: Path | None,
    arena_memory: str | None,
    max_drop: float | None,
    images: Path | None,
    images_limit: int,
    report_file: Path | None,
    pareto: bool,
    output: Path,
    json_file: Path | None,
) -> None:
    """Compile MODEL for a board into the folder OUTPUT.

    Microcontrollers and 32-bit Arm get plain C sources, other boards a shared library. What the sources will take on
    the board is told exactly where its compiler is installed: arena, worst-case stack, constants, code.
    """
    from thumbnet.compile.errors import CompileError
    from thumbnet.targets.placement import with_arena_in

    target = chosen_board(board, board_file, devices_file)
    board = target.name
    if arena_memory is not None:
        target = with_arena_in(target, arena_memory)
    check_options(options, target)
    if pareto and options.tuning is not None:
        raise CompileError(f"{board}: --pareto shows plans without tuning; leave it or --tuning out")
    if pareto and target.instruction_set is None:
        raise CompileError(
            f"{board}: --pareto is about plans of our own kernels, which this board does without; leave it out"
        )

    goal = QuantizationGoal(max_drop, images, images_limit, report_file is not None)
    check_goal(goal, options)

    with show_steps(f"compiling {files.model} for {board}") as shown:
        shown.step("loading PyTorch and TVM")
        from thumbnet.tools.checked_quantization import quantize_checked
        from thumbnet.tools.network import compile_request

        checked = quantize_checked(files, target, options, goal, shown.step)
        artifact = compile_request(files, checked.request, output)
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
            ("the caller's arena" if options.arena == "caller" else "arena")
            + (", without the input (bytes)" if options.stream_input else ", input included (bytes)"),
            manifest.get("arena_bytes"),
        ),
        ("cycles an inference (predicted)", manifest.get("predicted_cycles")),
        ("instructions an inference (predicted)", manifest.get("predicted_instructions")),
        ("stages that were measured", _measured(manifest)),
        ("planned for few", manifest.get("objective")),
        *_footprint(manifest),
        *_memories(manifest),
        ("ranges", manifest["quantization"]["ranges"]),
        ("quantization", _quantization(manifest["quantization"])),
        ("image to input", manifest["preprocessing"]["geometry"]),
        ("pixel to value", manifest["preprocessing"]["scaling"]),
        *(("assumed", line) for line in manifest["assumptions"]),
        ("folder", output),
    ]
    checked.print()
    print_skipped(manifest["quantization"]["calibration_skipped"])
    print_table("Compiled", ["what", "value"], [(key, _text(value)) for key, value in rows if value is not None])
    if pareto:
        _print_choices(
            manifest.get("ram_choices", ()), manifest.get("arena_bytes"), manifest.get("objective", "instructions")
        )
    write_json(report_file, checked.as_json())
    write_json(json_file, {**manifest, "folder": str(output)})


def _print_choices(choices: Sequence[Mapping[str, Any]], taken: int | None, objective: str) -> None:
    """Print the Pareto front, of points less than a twentieth apart one; all are in the manifest."""
    kinds = [kind for kind in ("cycles", "instructions") if choices and choices[0][f"predicted_{kind}"] is not None]
    rows: list[tuple[str, ...]] = []
    shown = 0.0
    for choice in choices:
        arena = choice["arena_bytes"]
        if rows and arena > 0.95 * shown and arena != taken and choice is not choices[-1]:
            continue
        shown = arena
        predicted = [choice[f"predicted_{kind}"] for kind in kinds]
        more = choice[f"predicted_{objective}"] / choices[0][f"predicted_{objective}"] - 1
        taken_one = "this one" if arena == taken else ""
        rows.append((f"{arena:,}", *(f"{count:,}" for count in predicted), f"+{more:.1%}", taken_one))
    columns = ["--ram-limit (bytes)", *(f"{kind} (predicted)" for kind in kinds), f"{objective} to the fewest", ""]
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


def _memories(manifest: dict[str, Any]) -> list[tuple[str, object]]:
    """Return how full each of a microcontroller's memories will be; the program around the network comes on top."""
    memories = manifest.get("memories")
    if memories is None:
        return []
    holds = {memories["stack"]: ["stack"]}
    holds.setdefault(memories["arena"], []).insert(0, "arena")
    return [
        (
            f"{bank['name']} (bytes)",
            f"{bank['used_bytes']:,} of {bank['bytes']:,}"
            + (f": {' and '.join(holds[bank['name']])}" if bank["name"] in holds else ""),
        )
        for bank in memories["banks"]
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


def _quantization(said: Mapping[str, Any]) -> str | None:
    """Return what was done beyond rounding to known or calibrated ranges."""
    done = [
        f"ranges by {said['range_method']}" if said["range_method"] else "",
        "channels equalized" if said["equalized"] else "",
        "biases corrected" if said["biases_corrected"] else "",
    ]
    return ", ".join(filter(None, done)) or None


def _measured(manifest: dict[str, Any]) -> str | None:
    """Return how much of a tuned plan was measured, what that costs, and which stages were not."""
    tuning = manifest.get("tuning")
    if tuning is None:
        return None
    measured, cost = tuning["measured_stages"], tuning["measured_cost"]
    number = f"{cost:,.0f}" if cost >= 1000 else f"{cost:.6g}"
    costs = f", which cost {number} {tuning['kind']}" if measured else ""
    others = [stage["name"] for stage in manifest["layers"] if "measured" not in stage]
    unmeasured = f"; not {', '.join(others)}" if measured and others else ""
    whose = " (records that came with thumbnet)" if tuning.get("shipped") else ""
    return f"{measured} of {len(manifest['layers'])}{whose}{costs}{unmeasured}"


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
