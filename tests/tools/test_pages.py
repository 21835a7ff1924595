"""The pages' commands, run as they stand there."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from thumbnet.models.variants import build_model, get_spec
from thumbnet.tools import api

from ..models import keras_files
from ..models.tflite_files import NetworkFile

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("daisy", "dandelion", "rose", "sunflower", "tulip")
COLOURS = ((230, 230, 220), (230, 200, 30), (200, 20, 40), (240, 140, 0), (150, 60, 200))
#: torchvision's of mobilenet_v2 and Keras' MobileNetV2.
CONVENTIONS = {"torchvision": {"padding": "symmetric", "bn_epsilon": 1e-5}, "keras": {"bn_epsilon": 1e-3}}


def run_shell(text, folder):
    """Run shell commands in a folder with this environment's Python; all must succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"


def read_blocks(page):
    """Return the language and text of each fenced block of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def run_page(page, folder):
    """Write the Python files of a page into a folder, and run its shell blocks there one after the other."""
    for language, text in read_blocks(page):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, f"the first line of a block of Python is its file's name: {text[:40]!r}"
            (folder / name[1]).write_text(text)
        elif language == "sh":
            run_shell(text, folder)
        else:
            assert language == "console", f"a block in {language} is neither run nor the reader's"


@pytest.fixture
def flowers(tmp_path):
    """A folder with images in a folder a class: noise with a blob of the class's colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 2)):
        for name, colour in zip(CLASSES, COLOURS, strict=True):
            folder = tmp_path / "flowers" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (15, 20, 3))
                row, column = rng.integers(1, 6, 2)
                pixels[row : row + 8, column : column + 10] = colour
                Image.fromarray(pixels.astype(np.uint8)).resize((200, 150)).save(folder / f"{number}.png")
    return tmp_path


def _trained(name, conventions):
    """A network whose batch norms know some images, as after training."""
    torch.manual_seed(0)
    spec = replace(get_spec(name), classes=len(CLASSES), **CONVENTIONS[conventions])
    network = build_model(spec).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    with torch.no_grad():
        network(torch.rand(8, *spec.input_shape).mul(2).sub(1))
    return network.eval()


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_your_own_network(flowers):
    # Weights as training in torchvision and Keras leaves them, which the tests do without.
    torch.save(_trained("mobilenet_v2_1.0_96", "torchvision").state_dict(), flowers / "flowers.pth")
    network = _trained("mobilenet_v2_0.35_96", "keras")
    layers = [*keras_files.list_layers(network), *keras_files.list_head(network)]
    keras_files.write_archive(flowers / "flowers.keras", keras_files.functional(layers, (96, 96, 3)), layers)
    writer = NetworkFile(network, "int8")
    image = writer.graph.tensor((1, 96, 96, 3), np.int8, (1 / 127.5, 0))
    writer.write(flowers / "flowers.tflite", image, 96, 3)

    run_page("models/your_own_network.md", flowers)

    report = json.loads((flowers / "report.json").read_text())
    assert (report["passed"], report["device"], report["images"]) == (True, "qemu_mps2_an500", 10)


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_python_api(flowers):
    # What it starts from is another page's.
    for language, text in read_blocks("models/your_own_network.md"):
        if language == "python":
            (flowers / re.match(r"# (\w+\.py)\n", text)[1]).write_text(text)
    run_shell("python train_gray.py", flowers)
    run_page("tools/python_api.md", flowers)


def test_the_api_needs_no_more_than_a_dozen_lines():
    script = next(text for language, text in read_blocks("tools/python_api.md") if language == "python")
    lines = [line for line in script.splitlines() if line and not line.startswith(("#", "import ", "from "))]
    assert len(lines) <= 12


def test_all_public_names_are_documented():
    for name in api.__all__:
        assert getattr(api, name).__doc__, name
