"""Damaged weights files of every format end in one of our errors, within bounded memory and work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from thumbnet.models.variants import get_spec
from thumbnet.models.weights import find_bundled, load_model

LOADER = Path(__file__).with_name("load_mutated.py")
DIGITS = "mobilenet_v1_0.25_digits"


def _load_mutated(file, name, copies):
    done = subprocess.run(
        [sys.executable, LOADER, file, name, str(copies)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:] or f"ended by signal {-done.returncode}"
    result = json.loads(done.stdout.splitlines()[-1])
    assert not result["wrong"], "\n".join(result["wrong"][:3])
    # A file is held a few times over: read, taken apart, as a network.
    assert result["grown_bytes"] < 12 * result["file_bytes"] + (100 << 20)
    assert result["outcomes"].get("WeightsFileError", 0) > copies / 10
    return result["outcomes"]


@pytest.fixture
def files(tmp_path, request):
    """Return a file of each format, by its suffix, with its network's name."""
    state = load_model(DIGITS).module.state_dict()
    # The plain ones are no networks of a bundled name: they say no more than their weights.
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "plain.safetensors")
    made = {path.name: (path, "mobilenet_v1_0.25_32") for path in tmp_path.iterdir()}
    made["own.pt"] = (find_bundled(get_spec(DIGITS)), DIGITS)
    return made


FORMATS = ["own.pt", "zip.pth", "old.pth", "plain.safetensors"]
SHARED = {
    "models/mobilenet_v1_0.25_128_quant.tflite": "mobilenet_v1_0.25_128",
    "models/vww_96_int8.tflite": "vww_96",
    "models/vww_96.h5": "vww_96",
    "field/mobilenet_v2_0.35_96_tlrescale_int8.tflite": "mobilenet_v2_0.35_96",
    "field/mobilenet_v2_0.35_96_top.h5": "mobilenet_v2_0.35_96",
    "field/mobilenet_v1_0.25_96_transfer_seq.keras": "mobilenet_v1_0.25_96",
    "field/tv_qat_fakequant.pth": "mobilenet_v2_0.35_96",
}


@pytest.mark.parametrize("name", FORMATS)
def test_pytorch(files, name):
    _load_mutated(*files[name], 40)


@pytest.mark.parametrize("file", SHARED)
def test_others(shared_data, file):
    _load_mutated(shared_data / file, SHARED[file], 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_pytorch_many(files, name):
    _load_mutated(*files[name], 500)


@pytest.mark.slow
@pytest.mark.parametrize("file", SHARED)
def test_others_many(shared_data, file):
    _load_mutated(shared_data / file, SHARED[file], 500)
