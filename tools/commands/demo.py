"""`thumbnet demo`: the whole way once, on what is bundled."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps

#: Four emulated microcontrollers and one emulated Linux board.
DEVICES = (
    "qemu_mps2_an386",
    "qemu_mps2_an500",
    "qemu_mps2_an505",
    "qemu_mps3_an547",
    "qemu_raspberry_pi_4",
)
CHECK_FAILED = 1


@click.command()
@click.option("--model", default="mobilenet_v1_0.25_digits", show_default=True, help="One of the bundled networks.")
@click.option("--limit", type=click.IntRange(min=2), default=20, show_default=True, help="Images to run on each.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("build/demo"), show_default=True
)
@json_option
def demo(model: str, limit: int, output: Path, json_file: Path | None) -> int:
    """Compile a bundled network for five boards, deploy it to their emulators over RPC, and check the answers."""
    from thumbnet.models.image_folder import list_images
    from thumbnet.models.weights import BUNDLED_IMAGES
    from thumbnet.runtime_tests.network_tests import run_tests
    from thumbnet.runtime_tests.open_session import open_session
    from thumbnet.targets.devices import get_device
    from thumbnet.tools.network import compile_network, load_trained
    from thumbnet.tools.network_options import NetworkFiles

    files = NetworkFiles(model)
    images = list_images(BUNDLED_IMAGES).images[:limit]
    reports = []
    with show_steps(model, len(DEVICES) * (len(images) + 1)) as shown:
        for name in DEVICES:
            device = get_device(name)
            shown.step(f"compiling for {device.board.name}")
            artifact = compile_network(files, device.board, output / device.board.name)
            shown.advance()
            shown.step(f"running on {name}")
            with open_session(device) as session:
                reports.append(run_tests(artifact, session, load_trained(artifact), images, advance=shown.advance))
    values = [report.values for report in reports]
    print_table(
        f"{model}, int8: {len(images)} images of handwritten digits on emulated boards",
        [
            "device",
            "core",
            "equal to reference",
            "top-1",
            "instructions an inference",
            "RAM (bytes)",
            "flash (bytes)",
            "checks",
        ],
        [
            (
                value["device"],
                value["core"],
                value["equal_to_reference"],
                f"{value['top1']:.0%}",
                value["instructions_per_inference"],
                value["ram_bytes"],
                value["flash_bytes"],
                "passed" if report.passed else "FAILED",
            )
            for value, report in zip(values, reports, strict=True)
        ],
    )
    click.echo(
        f"The compiled networks are in {output}: plain C for the Cortex-M boards, a shared library for the other."
    )
    write_json(json_file, [report.as_json() for report in reports])
    return 0 if all(report.passed for report in reports) else CHECK_FAILED
