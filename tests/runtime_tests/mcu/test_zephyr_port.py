"""The test server's port to Zephyr, which can't be installed: a program plays what the port takes of it."""

import random
import subprocess
from pathlib import Path

import pytest

from thumbnet.runtime_tests.mcu import firmware_build
from thumbnet.runtime_tests.mcu.protocol import ProtocolClient

from .host_board import FaultyLine, HostBoard

ZEPHYR = Path(__file__).with_name("zephyr")


@pytest.fixture(scope="module")
def program(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zephyr")
    (folder / "golden.c").write_text(firmware_build.golden_source(tiny))
    firmware = [firmware_build.FIRMWARE / name for name in ("rpc.c", "network_calls.c", "network_memory.c", "frame.c", "port_zephyr.c")]
    sources = [*firmware, ZEPHYR / "on_host.c", folder / "golden.c", *tiny.folder.glob("*.c")]
    command = ["gcc", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += ["-DTN_MODEL=tiny", "-DTN_MODEL_UPPER=TINY", "-DTN_MODEL_HEADER=<tiny.h>", "-DTN_MODEL_HASH=abc"]
    command += ["-DBOARD=zephyr", "-DCONFIG_MAIN_STACK_SIZE=4096"]
    command += ["-iquote", str(firmware_build.FIRMWARE), "-I", str(ZEPHYR), "-I", str(tiny.folder), *map(str, sources)]
    subprocess.run([*command, "-o", str(folder / "program")], check=True)
    return folder / "program"


@pytest.mark.needs_tools("gcc")
@pytest.mark.parametrize("faults", [{}, {"rate": 0.02}], ids=["a good line", "a bad line"])
def test_a_session(program, stand_in, faults):
    line = FaultyLine(HostBoard(program), random.Random(1), **faults)
    try:
        client = ProtocolClient(line, clock=line.clock)
        client.open()
        identity = client.identity
        assert (identity.model, identity.board, identity.tick_hz) == ("tiny", "zephyr", 1000)
        assert (identity.missing, identity.stack_bytes) == ("", 4096)
        for image in stand_in.make_images(3):
            client.write_input(image.tobytes())
            run = client.run()
            assert (run.ticks, run.stack_bytes) == (10, 64)
            assert client.read_output(run) == stand_in.compute_pool(image).tobytes()
        assert client.self_test().mismatch is None
    finally:
        line.close()
