"""The right firmware on a real board: asked for first, flashed only where it isn't there."""

from __future__ import annotations

from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.errors import FlashError, SessionError
from thumbnet.runtime_tests.mcu.device_line import longest_call_s
from thumbnet.runtime_tests.mcu.firmware_build import FirmwareImage
from thumbnet.runtime_tests.mcu.flash_board import flash_board
from thumbnet.runtime_tests.mcu.protocol import Identity, ProtocolClient
from thumbnet.runtime_tests.mcu.transport import Transport
from thumbnet.targets.device import Device

#: How long a board that runs our firmware may take to say so; one with another never does.
ANSWER_S = 2.0
#: How long a board may take to start.
START_S = 10.0


def deploy(
    device: Device,
    image: FirmwareImage,
    line: Transport,
    *,
    force: bool = False,
    progress: Progress = say_nothing,
) -> bool:
    """Have a board run a firmware; return whether it had to be flashed.

    Parameters
    ----------
    device : Device
        A board that says how it is flashed.
    image : FirmwareImage
        What it is to run.
    line : Transport
        To the board, open before it is reset, so that nothing it says is lost.
    force : bool
        Flash it whatever it runs.
    progress : callable
        Told before each step what is done next.

    Raises
    ------
    FlashError
        It could not be flashed, or runs another firmware afterwards.
    ToolchainError
        The image can't be made in the format that is asked for.
    """
    if device.flash is None:
        raise FlashError(
            f"{device.name}: nobody has said how it is flashed; put flash = ... into its table of the devices.toml, or "
            f"flash {image.elf} by yourself"
        )
    progress(f"asking {device.name} what it runs")
    if not force and _runs(ask_identity(device, line, ANSWER_S), device, image):
        return False
    flash_board(device.flash, device.board, image, progress)
    progress(f"waiting for {device.name} to start")
    found = ask_identity(device, line, START_S)
    if found is None:
        raise FlashError(
            f"{device.name}: was flashed by {device.flash.tool} but does not answer on {device.place}; is that its "
            "serial port, and the board reset?"
        )
    if not _runs(found, device, image):
        raise FlashError(
            f"{device.name}: was flashed by {device.flash.tool} but the board on {device.place} runs {found.model} "
            f"{found.model_hash} for {found.board}; are there two boards?"
        )
    return True


def ask_identity(device: Device, line: Transport, limit_s: float) -> Identity | None:
    """Return what the firmware on a board says of itself, None where none of ours answers in time."""
    try:
        return ProtocolClient(line, reply_timeout_s=limit_s, resend_s=0.25 + longest_call_s(device)).open()
    except SessionError:
        return None


def _runs(identity: Identity | None, device: Device, image: FirmwareImage) -> bool:
    return identity is not None and (identity.board, identity.model_hash) == (device.board.name, image.model_hash)
