"""`thumbnet serve`: a device on a tracker, for others to tune and test on."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from thumbnet.tools.commands.devices import devices_option


@click.command()
@click.option("--device", required=True, help="Name of the device to serve, see `thumbnet devices`.")
@click.option(
    "--tracker",
    required=True,
    help="HOST:PORT of a TVM RPC tracker; `python -m tvm.exec.rpc_tracker --host 127.0.0.1 --port 9190` starts one.",
)
@devices_option
def serve(device: str, tracker: str, devices_file: Path | None) -> None:
    """Register a device on a tracker under its board's name, and serve it until Ctrl-C.

    `thumbnet tune` and `thumbnet test` with --tracker and --board then use it, one client at a time. Emulated boards
    stand under BOARD.emulated: they are never taken for real ones. A microcontroller stays on the serial port of this
    computer, which is held only while somebody uses it.

    Who is served can run programs as you, on this computer too. So only who has your key is served: copy the file
    ~/.cache/thumbnet/farm.key to your other computers, and to nobody else's. The server listens on the one address that
    the tracker is reached from: with a tracker on 127.0.0.1, on nothing else. What is sent is not encrypted.
    """
    from thumbnet.runtime_tests.errors import SessionError
    from thumbnet.runtime_tests.linux.tracker import TrackedDevice
    from thumbnet.runtime_tests.serve_session import serve_session
    from thumbnet.runtime_tests.served.listener import Listener
    from thumbnet.targets.device import Device, tracker_key
    from thumbnet.targets.devices import get_device

    served = get_device(device, devices_file)
    if served.kind == "rpc":
        raise SessionError(f"{served.name}: is on the tracker {served.address} already")
    key = tracker_key(served.board, emulated=served.emulated)
    place = TrackedDevice.of(Device(served.name, served.board, "rpc", address=tracker, key=key))
    with Listener(place, partial(serve_session, served), lambda line: click.echo(f"{served.name}: {line}")) as listener:
        listener.serve_forever()
