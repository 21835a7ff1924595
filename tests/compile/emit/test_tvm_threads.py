"""A library of stages shares its work among the threads of TVM's pool; here on the host, with the kernels' twins."""

import json
import subprocess
import sys

import numpy as np
import pytest

from thumbnet.compile.emit.stage_library import build_stage_library
from thumbnet.compile.kernels.neon.stage import NeonStage
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.targets.registry import get_board

from ..networks import make_image, one_of_each_kind

#: Runs ``main`` with several numbers of threads, and says what came out and how often TVM's pool was asked.
PROGRAM = """
import json, sys
import numpy as np, tvm
from tvm import relax
library = tvm.runtime.load_module(sys.argv[1])
machine = relax.VirtualMachine(library, tvm.cpu())
image = tvm.runtime.tensor(np.load(sys.argv[2])[None])
found = [machine["main"](image).numpy().tolist()]
for threads in (1, 2, 4, 0):
    library.get_function("net_set_threads", query_imports=True)(threads)
    found.append(machine["main"](image).numpy().tolist())
refused = False
try:
    library.get_function("net_set_threads", query_imports=True)(-1)
except ValueError as error:
    refused = "takes a number of threads" in str(error)
print(json.dumps({"found": found, "refused": refused}))
"""


@pytest.mark.needs_tools("gcc")
def test_any_number_of_tvms_threads_gives_the_same_bytes(tmp_path):
    network = one_of_each_kind(size=40, channels=64)
    build_stage_library(
        lower_network(network, 1 << 22, kernels=NeonStage), "net", get_board("host"), tmp_path, title="t", generator="g"
    )
    image = make_image(network)
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "net.so", tmp_path / "image.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    expected = run_reference_layers(network, image)[network.output.name].reshape(-1)
    assert expected.std() > 1
    for found in said["found"]:
        np.testing.assert_array_equal(np.array(found).reshape(-1), expected)
    assert said["refused"]
