"""What `thumbnet test` runs: a network's artifacts and images, on all devices at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from thumbnet.compile.artifact import Artifact
from thumbnet.models.image_folder import ImageSet, hash_image
from thumbnet.models.weights import TrainedModel
from thumbnet.runtime_tests.device_runs import DeviceRun, Stop, run_on_devices
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.network_tests import run_tests
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device
from thumbnet.tools.network import load_trained
from thumbnet.tools.progress import StepDisplay


@dataclass(frozen=True)
class DeviceTests:
    """One network and what it is tested with.

    Parameters
    ----------
    artifacts : mapping of str to Artifact
        By the name of the device that runs it.
    networks : mapping of Path to TrainedModel
        What each artifact was made from, by the artifact's folder.
    images : ImageSet
        What is run.
    """

    artifacts: Mapping[str, Artifact]
    networks: Mapping[Path, TrainedModel]
    images: ImageSet

    @classmethod
    def of(cls, artifacts: Mapping[str, Artifact], load_images: Callable[[int], ImageSet]) -> DeviceTests:
        """Load what belongs to the artifacts; `load_images` is given how many classes there are to label."""
        networks = {artifact.folder: load_trained(artifact) for artifact in artifacts.values()}
        trained = next(iter(networks.values()))
        classes = trained.spec.classes - trained.preprocessing.label_offset
        return cls(artifacts, networks, load_images(classes))

    @property
    def model(self) -> str:
        """The network's name."""
        return str(next(iter(self.artifacts.values())).manifest["model"])

    def network_on(self, device: Device) -> TrainedModel:
        """Return the float network that what a device runs was made from."""
        return self.networks[self.artifacts[device.name].folder]

    def title(self, device: Device) -> str:
        """Return what stands above the results of a device."""
        skipped = f", {len(self.images.skipped)} skipped" if self.images.skipped else ""
        return f"{self.model} on {device.name}: {len(self.images.images)} images{skipped}"

    def run(
        self,
        runs: Sequence[DeviceRun],
        shown: StepDisplay,
        *,
        held: Mapping[str, DeviceSession],
        threads: int,
        retries: int,
    ) -> None:
        """Test on all devices, see `run_on_devices`.

        Parameters
        ----------
        runs : sequence of DeviceRun
            What becomes of them.
        shown : StepDisplay
            Told what is done, and of each image on each device.
        held : mapping of str to DeviceSession
            Those that are open already, by their device's name, for the first try.
        threads : int
            On devices that run Linux.
        retries : int
            See `run_on_devices`.
        """
        waiting = dict(held)

        def shown_for(device: Device) -> Callable[[str], None]:
            return lambda doing: shown.step(f"{device.name}: {doing}" if len(runs) > 1 else doing)

        def open_device(device: Device) -> DeviceSession:
            return waiting.pop(device.name, None) or open_session(device, threads, shown_for(device))

        def test(session: DeviceSession, run: DeviceRun, stop: Stop) -> None:
            def step(doing: str) -> None:
                stop.look()
                shown_for(run.device)(doing)

            def advance() -> None:
                stop.look()
                shown.advance()

            artifact = self.artifacts[run.device.name]
            network, images, report = self.network_on(run.device), self.images.images, run.report
            run_tests(artifact, session, network, images, advance=advance, progress=step, report=report)
            report.values["skipped_images"] = list(self.images.skipped)
            report.values["images_calibrated_on"] = self._count_calibrated_on(artifact)

        run_on_devices(runs, open_device, test, retries=retries)

    def _count_calibrated_on(self, artifact: Artifact) -> int:
        seen = set(artifact.manifest["quantization"].get("calibration_sha256", ()))
        return sum(hash_image(image) in seen for image in self.images.images) if seen else 0


def open_answering(
    runs: list[DeviceRun], threads: int, progress: Callable[[str], None], opened: contextlib.ExitStack
) -> dict[str, DeviceSession]:
    """Open all devices that answer and hold them, so that no two of a tracker are the same.

    Those that don't answer are named, and taken out of the list.

    Raises
    ------
    SessionError
        None answers.
    """
    sessions: dict[str, DeviceSession] = {}
    for run in [run for run in runs if run.skipped_because is None]:
        try:
            sessions[run.device.name] = opened.enter_context(open_session(run.device, threads, progress))
        except SessionError as error:
            if len(runs) == 1:
                raise
            runs.remove(run)
            click.echo(f"{run.device.name}: {error}; it is left out", err=True)
    return sessions
