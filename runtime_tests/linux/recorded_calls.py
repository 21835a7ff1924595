"""Predicted cycles of an emulated Linux board's calls, from the blocks that its server let be recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.vm_profile import VmCall, name_layers


def predict_calls(
    server: LinuxServer | None,
    artifact: Artifact,
    run: Callable[[], object],
    profile: Callable[[], Sequence[VmCall]],
) -> CyclePrediction | None:
    """Return the predicted cycles of an inference and of its stages; None where nothing is recorded.

    Parameters
    ----------
    server : LinuxServer or None
        What runs the network, where it is one of our own.
    artifact : Artifact
        The network.
    run : callable
        Measures one inference, before anything else that it measures.
    profile : callable
        Runs one inference call by call.
    """
    if server is None or server.cycle_model is None or server.profile is None:
        return None
    server.profile.start()
    run()
    whole = [block for block in server.profile.stop() if block.call == 0]
    server.profile.start()
    calls = profile()
    blocks = server.profile.stop()
    kernels = [call for call in calls if call.is_kernel]
    stages = {
        name: [block for block in blocks if block.call == kernel.recorded]
        for (name, _), kernel in zip(name_layers(artifact, calls), kernels, strict=True)
    }
    return server.cycle_model.predict(whole, stages)
