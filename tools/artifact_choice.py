"""Which of the artifacts somebody names goes onto which device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.models.variants import BUNDLED
from thumbnet.targets.device import Device
from thumbnet.tools.network import check_core, compile_network
from thumbnet.tools.network_options import NetworkFiles


def choose_artifacts(
    places: Sequence[str], devices: Sequence[Device], compiled: Path, progress: Progress = say_nothing
) -> dict[str, Artifact]:
    """Return an artifact for each device, by the device's name.

    Parameters
    ----------
    places : sequence of str
        Folders of artifacts; or, alone, the name of a bundled network, which is compiled for every board there is among
        the devices.
    devices : sequence of Device
        All names differ.
    compiled : Path
        Folder for what is compiled here.
    progress : callable
        Told before each step that may take long what is done next.

    Raises
    ------
    ArtifactError
        One is damaged, or made for a core that none of the devices has; a device's core has none.
    CompileError
        A bundled network can't be compiled for a board.
    """
    if _is_bundled(places[0]):
        if len(places) > 1:
            raise click.UsageError(f"{places[0]}: a bundled network's name stands alone; {places[1]} is one too many")
        return _compile_for(places[0], devices, compiled, progress)
    artifacts = [Artifact.load(Path(place)) for place in places]
    models = sorted({str(artifact.manifest["model"]) for artifact in artifacts})
    if len(models) > 1:
        raise ArtifactError(f"{models[0]} and {models[1]} are two networks; test one, compiled for several boards")
    chosen = {device.name: _choose(artifacts, device) for device in devices}
    for artifact in artifacts:
        if artifact not in chosen.values():
            manifest = artifact.manifest
            raise ArtifactError(
                f"{artifact.folder} was compiled for {manifest['board']} ({manifest['core']}), and none of the devices "
                "takes it; name one that does, or leave it out"
            )
    return chosen


def _is_bundled(place: str) -> bool:
    return place in {spec.name for spec in BUNDLED} and not Path(place).exists()


def _choose(artifacts: Sequence[Artifact], device: Device) -> Artifact:
    """Return the one for a device's board, else one for its core."""
    for key, wanted in (("board", device.board.name), ("core", device.board.core)):
        fitting = [artifact for artifact in artifacts if artifact.manifest[key] == wanted]
        if len(fitting) > 1:
            raise ArtifactError(
                f"{fitting[0].folder} and {fitting[1].folder} are both for {wanted}: which is {device.name} to run?"
            )
        if fitting:
            break
    chosen = fitting[0] if fitting else artifacts[0]
    check_core(chosen, device)
    return chosen


def _compile_for(model: str, devices: Sequence[Device], folder: Path, progress: Progress) -> dict[str, Artifact]:
    boards = {device.board.name: device.board for device in devices}
    artifacts = {}
    for name, board in boards.items():
        progress(f"compiling for {name}")
        artifacts[name] = compile_network(NetworkFiles(model), board, folder / name)
    return {device.name: artifacts[device.board.name] for device in devices}
