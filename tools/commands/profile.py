"""`thumbnet profile`: where an inference spends its instructions."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thumbnet.tools.commands.devices import devices_option, threads_option
from thumbnet.tools.output import json_option, write_json
from thumbnet.tools.progress import show_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thumbnet.compile.artifact import Artifact

#: Inferences for the whole's cost on emulated devices: counts are exact, but where several threads wait for each other.
COUNTED_RUNS, COUNTED_RUNS_OF_THREADS = 1, 5
#: Inferences for the stages' costs on real devices.
TIMED_PROFILES = 5


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", required=True, help="Name of a device, see `thumbnet devices`.")
@click.option(
    "--image",
    "image_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An image to run; a golden vector of the artifact if not given.",
)
@threads_option
@devices_option
@json_option
def profile(
    artifact: Path,
    device: str,
    image_file: Path | None,
    threads: int,
    devices_file: Path | None,
    json_file: Path | None,
) -> None:
    """Show what each stage of the network in ARTIFACT costs on a device, the dearest first.

    Instructions on emulated devices, with the cycles predicted from them where there is a model of the core; cycles or
    seconds on real ones; multiply-accumulates; and which kernel computes the stage. A stage is a layer, or layers that
    are computed together.
    """
    from thumbnet.compile.artifact import Artifact
    from thumbnet.targets.devices import get_device

    target = get_device(device, devices_file)
    loaded = Artifact.load(artifact)

    with show_steps(f"{loaded.manifest['model']} on {target.name}") as shown:
        shown.step("loading PyTorch and TVM")
        from thumbnet.runtime_tests.latency import describe_cost, measurement_fields
        from thumbnet.runtime_tests.open_session import open_session
        from thumbnet.runtime_tests.session import TIMED_RUNS
        from thumbnet.tools.cycle_output import cycle_fields, print_basis
        from thumbnet.tools.network import check_core
        from thumbnet.tools.stage_costs import cost_fields, median, print_stages, profile_stages

        check_core(loaded, target)
        image, source = _input_of(loaded, image_file)
        shown.step("opening the device")
        with open_session(target, threads, shown.step) as session:
            shown.step("loading the network")
            session.load(loaded)
            shown.step("measuring")
            cycles, unpredicted_because = session.predict_cycles_or_say_why(image)
            counted_runs = COUNTED_RUNS if threads == 1 else COUNTED_RUNS_OF_THREADS
            # The whole first: the stages of a real board are warm then.
            whole = session.measure(image, counted_runs if target.emulated else TIMED_RUNS)
            stages = profile_stages(loaded, session, image, cycles, 1 if target.emulated else TIMED_PROFILES)
    model = loaded.manifest["model"]
    what = f"{whole.kind} of one inference ({whole.certainty})"
    print_stages(f"{model} on {target.name} ({target.board.core}): {what}, {source}", stages, whole, cycles)
    print_basis([(target.board.core, cycles, unpredicted_because)])
    if not target.emulated:
        click.echo(f"Whole inference: {describe_cost(whole, target.board)}")
    if loaded.manifest["kind"] == "library":
        click.echo("What TVM's virtual machine does between kernels is in the whole inference and in no stage.")
    write_json(
        json_file,
        {
            "model": model,
            "device": target.name,
            "board": target.board.name,
            "core": target.board.core,
            "input": source,
            "kind": whole.kind,
            "threads": threads,
            "error": whole.error,
            "macs": loaded.manifest.get("macs"),
            "measurement": measurement_fields(whole, target.board),
            **cost_fields(whole.kind, median(whole.samples)),
            **cycle_fields(cycles, unpredicted_because),
            "layers": [stage.as_json() for stage in sorted(stages, key=lambda stage: -stage.cost)],
        },
    )


def _input_of(artifact: Artifact, image_file: Path | None) -> tuple[NDArray[Any], str]:
    """Return an input ``[H, W, C]`` in the artifact's dtype, and where it is from."""
    import numpy as np

    from thumbnet.compile.network.network_file import load_reference
    from thumbnet.compile.quantize_request import quantize_input
    from thumbnet.tools.network import load_trained

    integer = artifact.manifest["dtype"] == "int8"
    if image_file is not None:
        preprocessing = load_trained(artifact).preprocessing
        tensor = preprocessing.to_float(preprocessing.pixels(image_file))
        if integer:
            return quantize_input(load_reference(artifact), tensor), f"input: {image_file.name}"
        return np.ascontiguousarray(tensor[0].permute(1, 2, 0).numpy()), f"input: {image_file.name}"
    if integer:
        inputs, _ = artifact.golden()
        return inputs[0], "input: its first golden vector"
    # float32 artifacts have no golden vectors; no kernel's work depends on the values.
    shape = artifact.manifest["input"]["shape"]
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32), "input: seeded noise"
