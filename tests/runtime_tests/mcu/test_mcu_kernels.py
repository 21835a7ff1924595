"""Networks of random layers on the emulated cores: their instructions give the reference's bytes too."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.network.golden import make_golden
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "compile"))
import networks

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm"),
]

BOARDS = ("mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547")
DEVICES = {board: get_device(f"qemu_{board}") for board in BOARDS}
# QEMU has no such board with a serial port; Armv6-M is a part of Armv7-M, so its code runs on the Cortex-M3.
M0PLUS = replace(get_board("mps2_an385"), core="cortex-m0plus")
DEVICES["cortex-m0plus"] = Device("qemu_cortex_m0plus", M0PLUS, "emulated")
NETWORKS = {
    "even sizes": lambda: networks.chain_network((32, 32), (8, 16, 24), "same"),
    "odd sizes": lambda: networks.chain_network((13, 11), (5, 7, 3), "same"),
    "symmetric padding": lambda: networks.chain_network((14, 18), (4, 6, 10), "symmetric"),
    "wide": lambda: networks.chain_network((8, 40), (8, 12, 16), "same"),
    "inverted residual": lambda: networks.chain_network((12, 12), (8, 48, 8), "residual"),
    "inverted residual, odd": lambda: networks.chain_network((7, 9), (16, 40, 16), "residual"),
    "three by three": lambda: networks.chain_network((3, 3), (8, 24, 8), "residual"),
    "one of each kind": lambda: networks.one_of_each_kind(size=8, channels=8),
}


def _write_artifact(network, board, folder, *, caller_arena=False, **options):
    folder.mkdir()
    # The fast kernels, which networks this small would otherwise leave aside for the sake of RAM.
    lowered = lower_network(network, 1 << 20, kernels=KERNELS[get_board(board).instruction_set], **options)
    texts = {"title": "a network of the tests", "generator": "thumbnet's tests"}
    emit_c(lowered, "net", folder, **texts, caller_arena=caller_arena)
    inputs, outputs = make_golden(network)
    np.savez(folder / "golden.npz", inputs=inputs, outputs=outputs)
    shape = network.output.output_shape
    manifest = {
        "name": "net",
        "model": "net",
        "kind": "c",
        "board": board,
        "core": get_board(board).core,
        "dtype": "int8",
        "golden": {"file": "golden.npz"},
        "arena_bytes": lowered.plan.arena_bytes,
        "input": {"shape": network.input_shape, "dtype": "int8", "scale": 1.0, "zero_point": 0},
        "output": {"shape": (int(np.prod(shape)),), "dtype": "int8", "scale": 1.0, "zero_point": 0},
        "layers": [
            {"name": stage.name, "shape": stage.output_layout.shape, "layout": asdict(stage.output_layout)}
            for stage in lowered.stages
        ],
    }
    write_manifest(folder, manifest)
    return Artifact.load(folder)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_core_gives_the_references_bytes(device, name, tmp_path):
    _check(NETWORKS[name](), DEVICES[device], tmp_path)


@pytest.mark.parametrize("name", networks.EDGE_NETWORKS)
@pytest.mark.parametrize("device", ["mps2_an386", "mps3_an547"])
def test_shapes_at_the_edges(device, name, tmp_path):
    _check(networks.EDGE_NETWORKS[name](), DEVICES[device], tmp_path)


@pytest.mark.parametrize("name", networks.LARGE_KERNEL_NETWORKS)
@pytest.mark.parametrize("device", ["mps2_an386", "mps3_an547"])
def test_larger_depthwise_kernels(device, name, tmp_path):
    _check(networks.LARGE_KERNEL_NETWORKS[name](), DEVICES[device], tmp_path)


@pytest.mark.parametrize("name", ["even sizes", "odd sizes", "symmetric padding", "one of each kind"])
@pytest.mark.parametrize("device", ["mps2_an386", "mps3_an547"])
def test_an_image_read_row_by_row(device, name, tmp_path):
    _check(NETWORKS[name](), DEVICES[device], tmp_path, streamed=True)


@pytest.mark.parametrize("streamed", [False, True], ids=["image in the arena", "image read row by row"])
@pytest.mark.parametrize("device", ["cortex-m0plus", "mps2_an386", "mps3_an547"])
def test_an_arena_of_the_firmwares(device, streamed, tmp_path):
    _check(NETWORKS["one of each kind"](), DEVICES[device], tmp_path, streamed=streamed, caller_arena=True)


def _check(network, device, tmp_path, **options):
    artifact = _write_artifact(network, device.board.name, tmp_path / "net", **options)
    with MicrocontrollerSession(device) as session:
        session.load(artifact)
        for seed in range(2):
            image = networks.make_image(network, seed)
            expected = run_reference_layers(network, image)
            for layer, found in session.run_layers(image).items():
                assert expected[layer].std() > 1
                np.testing.assert_array_equal(found, expected[layer], err_msg=f"{layer} on {device}")
        memory = session.memory_use()
        assert memory.stack_unknown_because is None
        assert 0 < memory.stack_measured_bytes <= memory.stack_bytes
