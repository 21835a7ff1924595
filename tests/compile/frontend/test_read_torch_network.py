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


class _Shared(nn.Module):
    """Uses one convolution and its batch norm twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.norm = conv_unit(3, 4), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = Head(4)

    def forward(self, x):
        x = functional.relu(self.norm(self.again(self.first(x))))
        return self.head(functional.relu6(self.norm(self.again(x))))


class _Buffers(nn.Module):
    """Its weights are buffers, one of which no state dict has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", torch.rand(4, 3, 3, 3) - 0.5)
        self.register_buffer("offset", torch.tensor(0.3), persistent=False)
        self.head = Head(4)

    def forward(self, x):
        return self.head(functional.conv2d(x, self.kernel) + self.offset)


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
    "clipped": lambda: _then(lambda x: torch.clip(x, -0.5, torch.tensor(0.75).item())),
    "clamped by tensors": lambda: _then(lambda x: torch.clamp(x, torch.tensor(-0.5), torch.tensor(0.75))),
    "larger than a number": lambda: _then(lambda x: torch.maximum(torch.tensor(0.25), -x)),
    "smaller than a number": lambda: _then(lambda x: torch.minimum(x, torch.tensor(0.25))),
    "changed in place": lambda: _then(lambda x: x.add_(0.25).relu_()),
    "changed in place, told by nobody": lambda: _then(lambda x: (x.relu_(), x)[1]),
    "changed in place in another shape": lambda: nn.Sequential(
        conv_unit(3, 4, activation=None), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(True), nn.Linear(4, 5)
    ),
    "dropped out in place": lambda: nn.Sequential(
        conv_unit(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5, inplace=True), nn.Linear(4, 5)
    ),
    "mean after mean": lambda: nn.Sequential(conv_unit(3, 4), _Lambda(lambda x: x.mean(3).mean(2)), nn.Linear(4, 5)),
    "rows' mean, then the largest": lambda: nn.Sequential(
        conv_unit(3, 4), _Lambda(lambda x: x.mean(2, keepdim=True).amax(3)[..., 0]), nn.Linear(4, 5)
    ),
    "mean over flattened pixels": lambda: nn.Sequential(
        conv_unit(3, 4), _Lambda(lambda x: x.flatten(2).mean(-1)), nn.Linear(4, 5)
    ),
    "a pixel by index": lambda: nn.Sequential(
        conv_unit(3, 4), nn.AdaptiveAvgPool2d(1), _Lambda(lambda x: x[..., 0, 0]), nn.Linear(4, 5)
    ),
    "squeezed": lambda: nn.Sequential(
        conv_unit(3, 4), nn.AdaptiveAvgPool2d(1), _Lambda(lambda x: x.squeeze(-1).squeeze(-1)), nn.Linear(4, 5)
    ),
    "a row as an image": lambda: nn.Sequential(
        conv_unit(3, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        _Lambda(lambda x: x[:, :, None, None]),
        nn.Conv2d(4, 6, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6, 5),
    ),
    "constants by index": lambda: _then(lambda x: x * (torch.arange(8.0)[None, 1::2, None, None] + 1)),
    "constants by ellipsis": lambda: _then(lambda x: x + torch.arange(4.0)[..., None, None]),
    "shared by two": _Shared,
    "buffers": _Buffers,
    "norm before a convolution": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1), Head(4)),
    "norm after a pool": lambda: nn.Sequential(conv_unit(3, 4), nn.MaxPool2d(2), nn.BatchNorm2d(4), Head(4)),
    "padded on two sides": lambda: nn.Sequential(
        conv_unit(3, 4), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3, 2), Head(4)
    ),
    "windows that end at the border": lambda: _then(
        lambda x: functional.max_pool2d(functional.avg_pool2d(x, (2, 3), ceil_mode=True), (3, 1), ceil_mode=True)
    ),
    "dilated depthwise": lambda: nn.Sequential(conv_unit(3, 4), nn.Conv2d(4, 4, 3, dilation=2, groups=4), Head(4)),
    "no convolution": lambda: nn.Sequential(nn.Flatten(), nn.Linear(324, 8), nn.ReLU(), nn.Linear(8, 5)),
    "without biases": lambda: nn.Sequential(
        conv_unit(3, 4), nn.AvgPool2d((12, 9)), nn.Flatten(), nn.Linear(4, 6, False), nn.ReLU(), nn.Linear(6, 5, False)
    ),
    "nothing reads it": lambda: _then(lambda x: (functional.hardswish(x), x)[1]),
    "shapes decide": lambda: _then(lambda x: functional.max_pool2d(x, 2) if x.shape[2] > 4 else x),
    "one by name": lambda: nn.Sequential(conv_unit(3, 4), Head(4), _Lambda(lambda x: {"logits": x})),
    "normed weights": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), Head(4)
    ),
}


@pytest.mark.parametrize("kind", MODULES)
def test_modules_equal_torch(kind, tmp_path):
    module, images = calibrated(MODULES[kind](), SHAPE)
    network, left_out = read_torch_network(module, SHAPE)
    assert not left_out
    save_float_network(network, tmp_path / "network.npz")
    again = FloatModule(load_float_network(tmp_path / "network.npz"))
    with torch.no_grad():
        answers = [module(image) for image in images]
        expected = torch.cat([answer["logits"] if isinstance(answer, dict) else answer for answer in answers]).numpy()
        found = torch.cat([again(image) for image in images]).numpy()
    assert len(np.unique(expected, axis=0)) == len(images), "a network with one answer proves nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    rows = np.ascontiguousarray(images[0][0].permute(1, 2, 0).numpy())
    reference = run_float_layers(network, rows)[network.output.name].reshape(-1)
    np.testing.assert_allclose(reference, expected[0], rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (nn.Softmax(1), "2: its softmax is left out"),
        (nn.LogSoftmax(-1), "2: its log_softmax is left out"),
        (_Lambda(lambda x: functional.softmax(x[..., None], 1).flatten(1)), "2: its softmax is left out"),
    ],
)
def test_a_softmax_at_the_end_is_left_out_and_said_to_be(end, says):
    module, images = calibrated(nn.Sequential(conv_unit(3, 4), Head(4), end), SHAPE)
    network, left_out = read_torch_network(module, SHAPE)
    assert len(left_out) == 1
    assert says in left_out[0]
    with torch.no_grad():
        found = FloatModule(network)(images[0])
        torch.testing.assert_close(found, module[:-1](images[0]))
        assert found.argmax() == module(images[0]).argmax()


def test_layers_bear_their_modules_names():
    network, _ = read_torch_network(_Branches().eval(), SHAPE)
    assert [layer.name for layer in network.layers][:3] == ["conv", "relu", "other"]
    assert len({layer.name for layer in network.layers}) == len(network.layers)


def test_names_are_others_without_their_dots_too():
    module = nn.Module()
    module.a_b, module.a, module.input = nn.Conv2d(3, 3, 1), nn.Module(), nn.Conv2d(3, 3, 1)
    module.a.b, module.head = nn.Conv2d(3, 3, 1), Head(3)
    module.forward = lambda x: module.head(module.input(module.a.b(module.a_b(x))))
    network, _ = read_torch_network(module, SHAPE)
    names = [layer.name for layer in network.layers]
    assert names == ["a_b", "a.b.conv2d", "input.conv2d", "head", "head.classifier"]


class _Twice(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x


class _TwoImages(nn.Module):
    def forward(self, x, y=None):
        return x.mean((2, 3)) if y is None else y


class _Decides(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 5)
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        pixels = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(pixels, pixels, pixels)[0].mean(1))


class _Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("images", torch.zeros(()))
        self.head = Head(3)

    def forward(self, x):
        self.images += 1
        return self.head(x + self.images)


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
        (_Decides(), "_Decides: its code at test_read_torch_network.py:"),
        (_then(lambda x: torch.softmax(x, 1)), "1: PyTorch's softmax has no form here; at the end it is left out"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), Head(4), nn.Softmax(0)), "2: PyTorch's softmax has no form here"),
        (_then(lambda x: 2 * torch.softmax(x.mean((2, 3)), 1))[:2], "1: PyTorch's softmax has no form here"),
        (
            _then(lambda x: x + torch.linalg.cholesky(-torch.eye(4))[0, 0]),
            "linalg_cholesky has no form here; computing",
        ),
        (_then(lambda x: x + torch.rand(1)), "1: PyTorch's rand has no form here; its values are others"),
        (_then(lambda x: functional.dropout(x, 0.5, training=True)), "1: PyTorch's dropout has no form here; it drops"),
        (_then(lambda x: x.int().float()), "1: PyTorch's to has no form here; to torch.int32"),
        (_then(lambda x: (x.view(1, -1).relu_(), x)[1]), "1: PyTorch's relu has no form here; it changes in place"),
        (_then(lambda x: (x[:], x.relu_())[0]), "1: PyTorch's relu has no form here; it changes in place"),
        (_then(lambda x: x[:, :, 1:]), "1: PyTorch's slice has no form here; to [1, 4, 11, 9]"),
        (_then(lambda x: x[:, [1, 0, 2, 3]]), "1: PyTorch's index has no form here; values are picked"),
        (_then(lambda x: x.chunk(2, 1)[1])[:2], "1: PyTorch's chunk has no form here; a part of the channels"),
        (_then(lambda x: x + x.mean((2, 3), keepdim=True)), "PyTorch's add of 12 x 9 pixels of 4 channels and 1 x 1"),
        (
            _then(lambda x: x.mean((2, 3))[:, :, None] + x.mean((2, 3)))[:2],
            "one of its operands is spread to [1, 4, 4]",
        ),
        (_then(lambda x: x.mean((1, 2, 3)))[:2], "1: PyTorch's mean has no form here; only over rows"),
        (_then(lambda x: functional.max_pool2d(x.flatten(2), 2))[:2], "takes an image [1, C, H, W], no other shape"),
        (_then(lambda x: functional.max_pool2d(x, 2, ceil_mode=True)), "1: PyTorch's max_pool2d has no form here"),
        (_then(lambda x: functional.max_pool2d(x, 2, dilation=2)), "1: PyTorch's max_pool2d has no form here; dilated"),
        (_then(lambda x: functional.avg_pool2d(x, 2, divisor_override=3)), "divisor_override"),
        (_then(lambda x: x + torch.ones(4, 12, 9)), "a constant of shape [4, 12, 9] is no number for each"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(), Head(4)), "1: PyTorch's prelu has no form here; train it with"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(0.1), Head(4)),
            "1: PyTorch's leaky_relu has no form here; train",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm([4, 12, 9]), Head(4)), "1: PyTorch's layer_norm has no form"),
        (_Attention(), "PyTorch's transpose has no form here"),
        (_Counts(), "add has no form here; it changes a buffer from image to image"),
        (torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), Head(4))), "can't export it for an image of 3 x 12 x 9"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), Head(4)).to("meta"),
            "can't export it for an image of 3 x 12 x 9",
        ),
        (nn.Sequential(nn.Conv2d(1, 4, 3), Head(4)), "can't export it for an image of 3 x 12 x 9"),
        (nn.Sequential(nn.Conv2d(3, 4, 13), Head(4)), "can't export it"),
    ],
)
def test_what_has_no_form_is_named_in_one_line(module, says, capfd):
    with pytest.raises(UnsupportedOperatorError) as refused:
        read_torch_network(module.eval(), SHAPE)
    assert capfd.readouterr() == ("", ""), "PyTorch prints what it fails on"
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
