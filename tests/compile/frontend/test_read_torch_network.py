"""From anybody's PyTorch module to layers that compute the same; what has no form is named."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.frontend.float_module import FloatModule
from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.network.float_network_file import load_float_network, save_float_network
from thumbnet.compile.network.float_reference import run_float_layers

from ..torch_modules import Head, Residual, calibrated, conv_unit

SHAPE = (3, 12, 9)


class _Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _then(function, channels=4):
    """A convolution, a function of its output, and a classifier."""
    return nn.Sequential(conv_unit(3, channels, activation=None), _Lambda(function), Head(channels))


class _Branches(nn.Module):
    """Sums of branches that are read before and after their activations."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.other, self.head = nn.Conv2d(6, 6, 1), Head(6)

    def forward(self, x):
        bare = self.norm(self.conv(x))
        active = functional.relu(bare)
        summed = bare + self.other(active)
        return self.head(functional.relu6(summed) + summed - active)


class _Normalizes(nn.Module):
    """Brings its pixels to mean 0 itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6])[:, None, None])
        self.body = nn.Sequential(conv_unit(3, 4), Head(4))

    def forward(self, x):
        return self.body((x - self.mean) / torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1))


MODULES = {
    "batch norms alone": lambda: nn.Sequential(
        nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), Head(4)
    ),
    "several linear layers": lambda: nn.Sequential(
        conv_unit(3, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 7),
        nn.ReLU(),
        nn.Linear(7, 5),
    ),
    "linear over the image": lambda: nn.Sequential(conv_unit(3, 4), nn.Flatten(), nn.Linear(4 * 12 * 9, 5)),
    "batch norm of a row": lambda: nn.Sequential(
        conv_unit(3, 4), nn.Flatten(), nn.Linear(4 * 12 * 9, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5)
    ),
    "branches": _Branches,
    "normalizes": _Normalizes,
    "residual of relu": lambda: nn.Sequential(conv_unit(3, 4), Residual(conv_unit(4, 4)), nn.ReLU(), Head(4)),
    "average of windows": lambda: _then(lambda x: functional.avg_pool2d(x, 3, 2, 1)),
    "average of parts": lambda: _then(lambda x: functional.adaptive_avg_pool2d(x, (4, 3))),
    "maximum of windows": lambda: _then(lambda x: functional.max_pool2d(x, (3, 2), (2, 1), (1, 0))),
    "maximum of all": lambda: nn.Sequential(conv_unit(3, 4), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
    "mean": lambda: nn.Sequential(conv_unit(3, 4), _Lambda(lambda x: x.mean((2, 3))), nn.Linear(4, 5)),
    "amax": lambda: nn.Sequential(conv_unit(3, 4), _Lambda(lambda x: torch.amax(x, (-1, -2))), nn.Linear(4, 5)),
    "clamp from below": lambda: _then(lambda x: x.clamp(min=-0.25)),
    "clamp from above": lambda: _then(lambda x: torch.clamp(x, max=0.5)),
    "clamped twice": lambda: _then(lambda x: functional.relu(functional.hardtanh(x, -1.0, 0.75))),
    "scaled and shifted": lambda: _then(lambda x: 1.5 - 2 * (x / 3 + 0.25)),
    "added to itself": lambda: _then(lambda x: x + x),
    "added in part": lambda: _then(lambda x: torch.add(x, functional.relu(x), alpha=-0.5)),
    "padded before a pool": lambda: _then(lambda x: functional.avg_pool2d(functional.pad(x, (1, 0, 2, 1)), 2)),
    "dilated": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2), Head(4)),
    "same by name": lambda: nn.Sequential(nn.Conv2d(3, 4, (4, 3), padding="same"), Head(4)),
    "depthwise multiplier": lambda: nn.Sequential(nn.Conv2d(3, 9, 3, groups=3), nn.ReLU(), Head(9)),
    "large kernels": lambda: nn.Sequential(conv_unit(3, 4, 7, 2), conv_unit(4, 4, 5, groups=4), Head(4)),
    "views": lambda: nn.Sequential(
        conv_unit(3, 4), nn.AdaptiveAvgPool2d(1), _Lambda(lambda x: x.view(x.size(0), -1)), nn.Linear(4, 5)
    ),
    "softmax": lambda: nn.Sequential(conv_unit(3, 4), Head(4), nn.Softmax(1)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_modules_equal_torch(kind, tmp_path):
    module, images = calibrated(MODULES[kind](), SHAPE)
    network = read_torch_network(module, SHAPE)
    save_float_network(network, tmp_path / "network.npz")
    again = FloatModule(load_float_network(tmp_path / "network.npz"))
    if isinstance(module[-1] if isinstance(module, nn.Sequential) else None, nn.Softmax):
        module = module[:-1]
    with torch.no_grad():
        expected = torch.cat([module(image) for image in images]).numpy()
        found = torch.cat([again(image) for image in images]).numpy()
    assert len(np.unique(expected, axis=0)) == len(images), "a network with one answer proves nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    rows = np.ascontiguousarray(images[0][0].permute(1, 2, 0).numpy())
    reference = run_float_layers(network, rows)[network.output.name].reshape(-1)
    np.testing.assert_allclose(reference, expected[0], rtol=0, atol=1e-5 * np.abs(expected).max())


def test_layers_bear_their_modules_names():
    network = read_torch_network(_Branches().eval(), SHAPE)
    assert [layer.name for layer in network.layers][:3] == ["conv", "relu", "other"]
    assert len({layer.name for layer in network.layers}) == len(network.layers)


class _Twice(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x


class _TwoImages(nn.Module):
    def forward(self, x, y=None):
        return x.mean((2, 3)) if y is None else y


class _Decides(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish(), Head(4)),
            "1: PyTorch's hardswish has no form here; train it",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), Head(4)), "1: PyTorch's silu has no form here; train it"),
        (_then(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))), "PyTorch's sigmoid has no form here"),
        (_then(lambda x: x * x), "PyTorch's mul has no form here; two activations are multiplied"),
        (_then(lambda x: torch.cat([x[:, :2], x[:, 2:]], 1)), "has no form here"),
        (
            nn.Sequential(_then(lambda x: torch.cat([x, x], 1))[:2], Head(8)),
            "PyTorch's cat has no form here; channels are joined",
        ),
        (_then(lambda x: x.permute(0, 1, 3, 2)), "permute has no form here; keep the order"),
        (_then(lambda x: functional.avg_pool2d(x, 2, ceil_mode=True)), "ceil_mode"),
        (_then(lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)), "count_include_pad"),
        (_then(lambda x: functional.pad(x, (1, 1), value=0.5)), "only with zeros"),
        (_then(lambda x: functional.adaptive_avg_pool2d(x, 5)), "not parted evenly"),
        (_then(lambda x: x + torch.ones(12, 9)), "no number for each of 4 channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), Head(4)), "2 groups of 2 channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2), Head(4)), "1: PyTorch's conv_transpose2d"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), Head(4)), "instance_norm has no form here; replace"),
        (nn.Sequential(conv_unit(3, 4)), "one row of classes"),
        (_Twice(), "returns 2 values"),
        (_Decides(), "_Decides: PyTorch can't export it for an image of 3 x 12 x 9"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), Head(4)), "can't export it for an image of 3 x 12 x 9"),
        (nn.Sequential(nn.Conv2d(3, 4, 13), Head(4)), "can't export it"),
    ],
)
def test_what_has_no_form_is_named_in_one_line(module, says):
    with pytest.raises(UnsupportedOperatorError) as refused:
        read_torch_network(module.eval(), SHAPE)
    line = str(refused.value)
    assert says in line
    assert "\n" not in line


def test_damaged_numbers_are_named():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Head(4)).eval()
    with torch.no_grad():
        module[1].running_var[2] = -1
    with pytest.raises(UnsupportedOperatorError, match=r"1: PyTorch's batch_norm .* running variance of -1"):
        read_torch_network(module, SHAPE)
    with torch.no_grad():
        module[1].running_var[2] = 1
        module[0].weight[0] = torch.nan
    with pytest.raises(UnsupportedOperatorError, match=r"0: .*no finite numbers"):
        read_torch_network(module, SHAPE)
