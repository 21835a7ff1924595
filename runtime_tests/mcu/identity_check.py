"""Whether the firmware on a board is the one that was built for an artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.errors import ProtocolError
from thumbnet.runtime_tests.mcu.firmware_build import FirmwareImage
from thumbnet.runtime_tests.mcu.firmware_sources import STACK_BYTES
from thumbnet.runtime_tests.mcu.protocol import Identity
from thumbnet.targets.device import Device


def check_identity(device: Device, identity: Identity, artifact: Artifact, image: FirmwareImage) -> None:
    """Compare what a firmware says of itself with the artifact and the image built from it.

    Raises
    ------
    ProtocolError
        It is another, or the artifact's sources are not what its manifest says; the message tells the way out.
    """
    board, manifest = device.board.name, artifact.manifest
    if identity.board != board or identity.model_hash != image.model_hash:
        raise ProtocolError(
            f"{device.name} runs {identity.model} {identity.model_hash} for {identity.board}, wanted "
            f"{artifact.name} {image.model_hash} for {board}; {way_onto_board(device, image)}"
        )
    sizes = {
        "bytes of input": (identity.input_bytes, _bytes_of(manifest["input"])),
        "bytes of output": (identity.output_bytes, _bytes_of(manifest["output"])),
        "bytes of arena": (identity.arena_bytes, manifest["arena_bytes"]),
        "layers": (identity.layer_count, len(manifest["layers"])),
        "bytes of stack": (identity.stack_bytes, STACK_BYTES),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise ProtocolError(
                f"{device.name}: the firmware has {found} {what}, {artifact.name}'s manifest says {wanted}; "
                f"{way_onto_board(device, image)}, or compile the network again"
            )


def explain_setup(device: Device, identity: Identity | None) -> str | None:
    """Return what of a board's set-up did not come; emulators that model no clocks have none that could."""
    if identity is None or not identity.missing or device.kind == "emulated":
        return None
    return (
        f"{identity.missing} did not come, the core does not run at {device.board.clock_hz or 0:,} Hz; "
        "check the board's supply and crystal, and its file"
    )


def way_onto_board(device: Device, image: FirmwareImage) -> str:
    """Return what a person does to have a firmware run on a board."""
    if device.board.runs_linux:
        return f"copy {image.elf} to the board and start it there"
    return f"flash {image.elf}"


def _bytes_of(tensor: Mapping[str, Any]) -> int:
    return int(math.prod(tensor["shape"]) * np.dtype(tensor["dtype"]).itemsize)
