"""A network of a person's own: their Python module, their weights, an image that is no square."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import ArtifactError
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network, load_trained
from thumbnet.tools.network_options import NetworkFiles

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False), nn.BatchNorm2d(8))
        self.pool, self.head = nn.MaxPool2d(2), nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        x = self.stem(x)
        x = self.pool(torch.relu(x + self.wide(x)))
        return self.head(x.mean((2, 3)))

def colour():
    return Net(3)

def gray():
    return Net(1)

def swish():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def fails():
    raise RuntimeError("no such dataset")

def number():
    return 3

def wants(number):
    return Net(number)

def ends():
    raise SystemExit(0)

def decides():
    class Decides(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))
    return Decides()

def classified():
    return nn.Sequential(Net(3), nn.Softmax(1))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a person's module, its weights as a training program leaves them, and images."""
    (tmp_path / "own_net.py").write_text(MODULE)
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)")
    (tmp_path / "unfinished.py").write_text("def make(:")
    (tmp_path / "empty.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    import own_net  # noqa: PLC0415 - made above

    for factory in ("colour", "gray"):
        torch.manual_seed(8)
        network = getattr(own_net, factory)()
        channels = network.stem[0].in_channels
        network.train()(torch.rand(8, channels, 24, 40))
        weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"epoch": 3, "model": weights, "model_ema": {**weights}}, tmp_path / f"{factory}.pth")
    rng = np.random.default_rng(1)
    for index in range(4):
        pixels = rng.integers(0, 256, (6, 10, 3)).astype(np.uint8)
        folder = tmp_path / "images" / f"{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((50, 30)).save(folder / f"{index}.png")
    yield tmp_path
    sys.modules.pop("own_net", None)


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize(("factory", "shape"), [("colour", "3x24x40"), ("gray", "1x40x24")])
def test_an_own_module_from_weights_to_the_boards_report(own, thumbnet, factory, shape):
    code, out, err = thumbnet(
        *("compile", f"own_net:{factory}", "--input", shape, "--weights", f"{factory}.pth", "--calibration", "images"),
        *("--mean", "0.5", "--std", "0.25", "--resize-mode", "short-side", "--board", "mps2_an386", "-o", "made"),
    )
    assert code == 0, err
    _, height, width = map(int, shape.split("x"))
    assert f"covers {width} x {height} (bilinear)" in " ".join(out.split())
    assert "model, of model, model_ema" in " ".join(out.split())
    # The artifact stands on its own: the person's code is not needed any more, and not run.
    (own / "own_net.py").write_text("raise RuntimeError('must not be imported')")
    sys.modules.pop("own_net")
    code, out, err = thumbnet(
        "test", "made", "--device", "qemu_mps2_an386", "--images", "images", "--json", "report.json"
    )
    assert code == 0, out + err
    assert "every layer equal" in out
    code, out, _ = thumbnet("profile", "made", "--device", "qemu_mps2_an386", "--image", "images/0/0.png")
    assert code == 0
    assert "wide" in out


def test_the_artifact_keeps_the_float_network(own):
    files = NetworkFiles("own_net:colour", own / "colour.pth", calibration=own / "images", input_shape=(3, 24, 40))
    artifact = compile_network(files, get_board("mps2_an386"), own / "made")
    trained = load_trained(artifact)
    assert (trained.spec.classes, trained.spec.input_shape, trained.preprocessing.size) == (3, (3, 24, 40), (24, 40))
    image = trained.preprocessing.to_float(trained.preprocessing.pixels(own / "images" / "0" / "0.png"))
    import own_net  # noqa: PLC0415

    network = own_net.colour().eval()
    state = torch.load(own / "colour.pth", weights_only=True)["model"]
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    with torch.no_grad():
        torch.testing.assert_close(trained.module(image), network(image), rtol=1e-4, atol=1e-5)
    damaged = np.load(artifact.folder / "host" / "float_network.npz")
    arrays = dict(damaged)
    arrays["stem.0/weight"] = arrays["stem.0/weight"][:4]
    np.savez(artifact.folder / "host" / "float_network.npz", **arrays)
    with pytest.raises(ArtifactError, match=r"stem\.0: weight is float32 \(4, 3, 3, 3\)"):
        load_trained(Artifact(artifact.folder, artifact.manifest))


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
def test_an_own_module_in_float32(own, thumbnet):
    code, out, err = thumbnet(
        *("compile", "own_net:classified", "--input", "3x24x40", "--quantize", "none"),
        *("--board", "raspberry_pi_4", "-o", "made"),
    )
    assert code == 0, err
    assert "1: its softmax is left out; outputs are logits" in " ".join(out.split())
    code, out, err = thumbnet("test", "made", "--device", "qemu_raspberry_pi_4", "--images", "images")
    assert code == 0, out + err
    assert "every layer close" in out


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")
def test_an_own_module_is_tuned(own, thumbnet):
    network = ("own_net:gray", "--input", "1x24x40", "--weights", "gray.pth", "--calibration", "images")
    code, out, err = thumbnet(
        *("tune", *network, "--space", "kernels", "--device", "qemu_mps2_an386", "--trials", "8", "-o", "records"),
    )
    assert code == 0, out + err
    code, out, err = thumbnet(
        *("compile", *network, "--tuning", "records", "--emulated-records", "--board", "mps2_an386", "-o", "made"),
    )
    assert code == 0, err
    assert "stages that were measured" in out


def test_a_module_in_memory_stays_as_it_is(own):
    import own_net  # noqa: PLC0415 - made by the fixture

    network = own_net.colour().train().half()
    files = NetworkFiles(
        "mine", own / "colour.pth", calibration=own / "images", input_shape=(3, 24, 40), module=network
    )
    artifact = compile_network(files, get_board("mps2_an386"), own / "made")
    assert network.training
    assert network.head[0].weight.dtype == torch.float16
    assert (artifact.name, load_trained(artifact).spec.name) == ("mine", "mine")


BOARD = ("--board", "mps2_an386", "-o", "made")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("own_net:colour",), "what image does it take? --input CxHxW"),
        (("own_net:colour", "--input", "3x24"), "'3x24' is not channels x rows x columns"),
        (("own_net:colour", "--input", "2x24x24"), "an input of 2 x 24 x 24 is no image"),
        (("own_net:colour", "--input", "3x24x99999"), "an input of 3 x 24 x 99999 is no image"),
        (("own_net:colour", "--input", "3x24x24"), "give calibration images (--calibration DIR)"),
        (("own_net:colour", "--input", "3x24x24", "--padding", "same"), "leave --padding out"),
        (("own_net:colour", "--input", "3x24x24", "--classes", "4"), "has 3 classes, 4 were asked for"),
        (("own_net:colour", "--input", "3x24x24", "--weights-key", "ema"), "give --weights FILE too"),
        (("own_net:colour", "--input", "3x24x24", "--weights", "gray.pth"), "stem.0.weight is [8, 1, 3, 3]"),
        (("own_net:colour", "--input", "3x24x24", "--weights", "own_net.py"), "no PyTorch file"),
        (("own_net:swish", "--input", "3x24x24", "--weights", "colour.pth"), "another network"),
        (("own_net:swish", "--input", "3x24x24"), "1: PyTorch's hardswish has no form here; train it with ReLU6"),
        (("own_net:fails", "--input", "3x24x24"), "calling fails() failed (RuntimeError: no such dataset)"),
        (("own_net:number", "--input", "3x24x24"), "number() returned a int, not a torch.nn.Module"),
        (("own_net:wants", "--input", "3x24x24"), "calling wants() failed (TypeError: wants() missing 1 required"),
        (("own_net:ends", "--input", "3x24x24"), "calling ends() failed (SystemExit: 0)"),
        (("own_net:decides", "--input", "3x24x24"), "Decides: its code at own_net.py:41 decides by an image's values"),
        (("script:make", "--input", "3x24x24"), "importing script ends the program; put what only a script does under"),
        (("unfinished:make", "--input", "3x24x24"), "importing unfinished failed (SyntaxError: "),
        (("empty:make", "--input", "3x24x24"), "empty has no 'make' to call; it has nothing"),
        (("empty.inner:make", "--input", "3x24x24"), "no module 'empty.inner' in"),
        (("own_net:", "--input", "3x24x24"), "names of your own modules are like package.module:factory"),
        ((":colour", "--input", "3x24x24"), "names of your own modules are like package.module:factory"),
        (("../own_net:colour", "--input", "3x24x24"), "names of your own modules are like package.module:factory"),
        (("own_net:other", "--input", "3x24x24"), "own_net has no 'other' to call; it has"),
        (("no_such_net:make", "--input", "3x24x24"), "no module 'no_such_net' in"),
        (("mobilenet_v1_0.25_digits", "--input", "1x32x32"), "its name says what image it takes"),
    ],
)
def test_bad_input_is_one_line(own, refused, arguments, says):
    assert says in refused("compile", *arguments, *BOARD)
    assert not (own / "made").exists()


@pytest.mark.parametrize("command", [("cost",), ("check", "--images", "images", "--weights", "colour.pth")])
def test_commands_by_name_refuse_a_module(own, refused, command):
    assert "own_net:colour" in refused(command[0], "own_net:colour", *command[1:])
