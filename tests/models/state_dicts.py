"""Networks whose weights are written in all manners of files, and what tests ask of reading them."""

import pytest
import torch
from torch import nn

from thumbnet.models.errors import ModelError
from thumbnet.models.variants import ModelSpec, build_model
from thumbnet.models.weights import load_model

NAME = "mobilenet_v2_0.35_96"
V1 = "mobilenet_v1_0.25_64"


def make_network(spec, seed=1):
    """Make a network whose batch norms matter, so that a mix-up shows."""
    torch.manual_seed(seed)
    network = build_model(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    return network.eval()


def make_torchvision(seed=1):
    return make_network(ModelSpec(NAME, "v2", 0.35, 96, 5, padding="symmetric", bn_epsilon=1e-5), seed)


def assert_same(network, model):
    image = torch.randn(2, 3, model.spec.resolution, model.spec.resolution)
    with torch.no_grad():
        torch.testing.assert_close(model.module(image), network(image))


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def save(tmp_path, content, name="weights.pth", **options):
    path = tmp_path / name
    torch.save(content, path, **options)
    return path


def assert_refused(path, name=NAME, **options):
    with pytest.raises(ModelError) as caught:
        load_model(name, path, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert str(path) in str(caught.value)
    return str(caught.value)
