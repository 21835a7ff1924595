"""Networks with the ranges of their quantization-aware files answer as LiteRT does on the same files."""

import numpy as np
import pytest
import torch

from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.reference import run_reference
from thumbnet.compile.quantize_request import quantize_input, quantize_network
from thumbnet.compile.request import CompileRequest
from thumbnet.models.image_folder import list_images
from thumbnet.models.weights import load_model
from thumbnet.targets.registry import get_board


def _answer(shared_data, name, step):
    """Return our top-1, LiteRT's, and the labels, as the network counts classes."""
    torch.set_num_threads(1)
    trained = load_model(name, shared_data / "models" / f"{name}_quant.tflite")
    request = CompileRequest(
        name,
        trained.module,
        (3, trained.spec.resolution, trained.spec.resolution),
        get_board("mps2_an500"),
        activation_quant=trained.activation_quant,
        weight_scales=trained.weight_scales,
    )
    network = read_relax(quantize_network(request))
    images = list_images(shared_data / "images").images[::step]
    outputs = []
    for image in images:
        pixels = trained.preprocessing.pixels(image.path)
        outputs.append(run_reference(network, quantize_input(network, trained.preprocessing.to_float(pixels))))
    with np.load(shared_data / "golden" / f"{name}_quant.npz") as golden:
        position = {str(file): index for index, file in enumerate(golden["files"])}
        litert = golden["probabilities_uint8"][[position[image.path.name] for image in images]]
    labels = np.array([image.class_index for image in images]) + trained.preprocessing.label_offset
    assert np.stack(outputs).std(axis=0).mean() > 1, "a network with one answer proves nothing"
    return np.stack(outputs).argmax(1), litert.argmax(1), labels


def test_a_few_images_answer_as_litert(shared_data):
    ours, litert, _ = _answer(shared_data, "mobilenet_v1_0.25_128", 5)
    assert len(ours) == 40
    assert (ours == litert).mean() >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128", "mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224"])
def test_all_images_answer_as_litert(shared_data, name):
    ours, litert, labels = _answer(shared_data, name, 1)
    top1, expected = (ours == labels).mean(), (litert == labels).mean()
    print(f"{name}: top-1 {top1:.1%}, LiteRT {expected:.1%}, the same answer {(ours == litert).mean():.1%}")
    # One-sided: V1 0.25-128 was measured at 46.5 % against LiteRT's 44.5 %, which is two points off, upwards (5 images
    # right where LiteRT's is wrong, 1 the other way). How close the answers are is the agreement's business.
    assert top1 >= expected - 0.0101
    assert (ours == litert).mean() >= 0.9
