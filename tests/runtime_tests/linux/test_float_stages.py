"""Float32 networks on our own kernels: from PyTorch to the emulated board, and the C interface beside it."""

import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import CompileError, DoesNotFitError
from thumbnet.compile.frontend.torch_to_relax import import_float
from thumbnet.compile.network.float_reference import run_float_layers
from thumbnet.compile.passes.match_float_layers import match_float_layers
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.models.image_folder import list_images
from thumbnet.models.weights import BUNDLED_IMAGES, load_model
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")]
NETWORKS = ("mobilenet_v1_0.25_digits", "mobilenet_v2_0.35_digits")
CALLER = """
#include <stdio.h>
#include "NAME.h"
int main(void) {
    float *input = NAME_input();
    while (fread(input, 1, UPPER_INPUT_BYTES, stdin) == UPPER_INPUT_BYTES) {
        NAME_run();
        fwrite(NAME_output(), 1, UPPER_OUTPUT_BYTES, stdout);
    }
    return 0;
}
"""


def _request(trained, name, **options):
    board = get_board("raspberry_pi_4")
    return CompileRequest(name, trained.module, (1, 32, 32), board, CompileOptions(quantize="none", **options))


@pytest.fixture(scope="module", params=NETWORKS)
def compiled(request, tmp_path_factory):
    """Network, artifact, inputs ``[1, C, H, W]`` and PyTorch's logits."""
    trained = load_model(request.param)
    artifact = compile_model(_request(trained, request.param), tmp_path_factory.mktemp("float") / "artifact")
    to_float, pixels = trained.preprocessing.to_float, trained.preprocessing.pixels
    inputs = [to_float(pixels(image.path)) for image in list_images(BUNDLED_IMAGES).images[:4]]
    with torch.no_grad():
        expected = [trained.module(image)[0].numpy() for image in inputs]
    return trained, artifact, inputs, expected


def _rows(image):
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def _check_close(found, expected, tolerance=1e-4):
    assert not np.array_equal(found[0], found[1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def test_the_emulated_board_comes_close_to_pytorch(compiled):
    trained, artifact, inputs, expected = compiled
    manifest = artifact.manifest
    assert (manifest["dtype"], manifest["tuned"], "unplanned_because" in manifest) == ("float32", False, False)
    network = match_float_layers(import_float(trained.module, inputs[0]))
    with TvmRpcSession(get_device("qemu_raspberry_pi_4")) as session:
        session.load(artifact)
        _check_close([session.run(_rows(image)) for image in inputs], expected)
        layers, reference = session.run_layers(_rows(inputs[0])), run_float_layers(network, _rows(inputs[0]))
        assert list(layers) == [layer["name"] for layer in manifest["layers"]]
        for name, found in layers.items():
            limit = 1e-4 * np.abs(reference[name]).max()
            np.testing.assert_allclose(found, reference[name], rtol=0, atol=limit, err_msg=name)
        costs = session.profile(_rows(inputs[0]))
        whole = session.measure(_rows(inputs[0]), 2)
    assert [cost.name for cost in costs] == list(layers)
    assert whole.samples[0] == whole.samples[1] >= sum(cost.value for cost in costs)
    assert sum(cost.value for cost in costs) == pytest.approx(manifest["predicted_instructions"], rel=0.15)


def test_a_program_without_tvm_comes_close_to_pytorch(compiled, tmp_path):
    _, artifact, inputs, expected = compiled
    name = artifact.name
    (tmp_path / "main.c").write_text(CALLER.replace("NAME", name).replace("UPPER", name.upper()))
    compiler = "aarch64-linux-gnu-gcc"
    sources = ["main.c", artifact.folder / f"lib{name}.a"]
    command = [compiler, "-static", "-Wall", "-Werror", f"-I{artifact.folder}", *sources, "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "cortex-a72", tmp_path / "program"],
        input=b"".join(_rows(image).tobytes() for image in inputs),
        capture_output=True,
        check=True,
    )
    _check_close(np.frombuffer(done.stdout, np.float32).reshape(len(inputs), -1), expected)


def test_a_limit_on_ram_is_kept_and_refused_where_it_cannot_be(tmp_path):
    trained = load_model(NETWORKS[0])
    free = compile_model(_request(trained, NETWORKS[0]), tmp_path / "free").manifest
    limit = (free["ram_choices"][-1]["arena_bytes"] + free["arena_bytes"]) // 2
    limited = compile_model(_request(trained, NETWORKS[0], ram_limit=limit), tmp_path / "limited").manifest
    assert limited["arena_bytes"] <= limit < free["arena_bytes"]
    with pytest.raises(DoesNotFitError, match="--ram-limit is 1000"):
        compile_model(_request(trained, NETWORKS[0], ram_limit=1000), tmp_path / "none")


class _Unplanned(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.classes = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, image):
        return self.classes(torch.sigmoid(self.conv(image)).mean((2, 3)))


def test_what_has_no_kernels_here_gets_tvms(tmp_path):
    board = get_board("raspberry_pi_4")
    torch.manual_seed(0)
    request = CompileRequest("net", _Unplanned().eval(), (1, 8, 8), board, CompileOptions(quantize="none"))
    artifact = compile_model(request, tmp_path / "artifact")
    assert "is no layer here" in artifact.manifest["unplanned_because"]
    images = [torch.randn(1, 1, 8, 8) for _ in range(2)]
    with TvmRpcSession(get_device("qemu_raspberry_pi_4")) as session, torch.no_grad():
        session.load(artifact)
        _check_close([session.run(_rows(image)) for image in images], [request.module(image)[0] for image in images])
    limited = CompileOptions(quantize="none", ram_limit=100000)
    with pytest.raises(CompileError, match="--ram-limit needs layers of our own kernels"):
        compile_model(CompileRequest("net", request.module, (1, 8, 8), board, limited), tmp_path / "limited")
