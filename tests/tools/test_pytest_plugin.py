"""The plugin of pytest: somebody's own tests, on boards, with the page's example."""

import re
from pathlib import Path

import pytest

from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

pytest_plugins = ["pytester"]

PAGE = Path(__file__).resolve().parents[2] / "runtime_tests" / "README.md"
M4, OTHER_M4 = "qemu_mps2_an386", "qemu_netduinoplus2"
ON_BOARDS = ("--thumbnet-device", M4, "--thumbnet-device", OTHER_M4)
emulated = pytest.mark.emulated
needs_tools = pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m4") / "digits"
    compile_network(NetworkFiles("mobilenet_v1_0.25_digits"), get_board("mps2_an386"), folder)
    return folder


@pytest.fixture
def run(pytester):
    """Run pytest on a file in this process: what it found."""

    def run(source, *options):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", "-v", *options)

    return run


def _example(folder):
    source = re.search(r"```python\n(# test_digits.py\n.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    assert source.count('"build/digits"') == 1
    return source.replace('"build/digits"', repr(str(folder)))


@emulated
@needs_tools
def test_the_pages_example_runs_on_each_device(run, digits):
    done = run(_example(digits), *ON_BOARDS)
    done.assert_outcomes(passed=4)
    lines = [line.split()[0].partition("::")[2] for line in done.outlines if " PASSED " in line]
    names = ("test_the_board_gives_the_expected_bytes", "test_an_inference_is_cheap_enough")
    # One board after the other.
    assert lines == [f"{name}[{device}]" for device in (M4, OTHER_M4) for name in names]


def test_without_a_device_they_are_skipped(run, digits):
    done = run(_example(digits))
    done.assert_outcomes(skipped=2)
    done.stdout.fnmatch_lines(["*needs a device: pytest --thumbnet-device NAME, see `thumbnet devices`"])


@needs_tools
def test_a_device_that_isnt_there_is_skipped_with_the_reason(run, pytester, digits):
    desk = pytester.path / "desk.toml"
    desk.write_text('[devices.gone]\nboard = "nucleo_l4r5zi"\nkind = "serial"\nport = "/dev/ttyNOTHERE"\n')
    done = run(_example(digits), "--thumbnet-device", "gone", "--thumbnet-devices", desk)
    done.assert_outcomes(skipped=2)
    done.stdout.fnmatch_lines(["SKIPPED*/dev/ttyNOTHERE: can't be opened*is the board plugged in?"])


@emulated
@needs_tools
def test_a_failing_test_and_a_wrong_artifact_are_no_skips(run, digits):
    source = f"""
        def test_wrong(device, load_artifact):
            inputs, outputs = load_artifact({str(digits)!r}).golden()
            assert (device.run(inputs[0]) == outputs[1]).all()

        def test_nothing(load_artifact):
            load_artifact("nothing")
    """
    done = run(source, "--thumbnet-device", M4)
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*ArtifactError: nothing: no manifest.json there*"])
    done = run(_example(digits), "--thumbnet-device", "qemu_mps3_an547")
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(["*ArtifactError: *was compiled for mps2_an386 (cortex-m4), qemu_mps3_an547 is a*"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--thumbnet-device", "qemu_mps2_an387"), "ERROR: unknown device qemu_mps2_an387, did you mean qemu_mps2_an*"),
        (
            (*ON_BOARDS, "--thumbnet-devices", "none.toml"),
            "ERROR: none.toml: can't be read (No such file or directory)",
        ),
    ],
)
def test_a_device_that_cant_be_is_one_line(run, options, says):
    done = run("def test(device): pass", *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([says])
    assert len([line for line in done.errlines if line.strip()]) == 1


def test_a_device_of_ones_own_takes_its_place(run):
    source = """
        import pytest

        @pytest.fixture
        def device():
            return "mine"

        def test_own(device):
            assert device == "mine"

        @pytest.mark.parametrize("device", ["cpu", "cuda"])
        def test_parametrized(device):
            assert device in ("cpu", "cuda")
    """
    for options in ((), ON_BOARDS):
        run(source, *options).assert_outcomes(passed=3)


def test_several_workers_share_no_real_board(run, pytester):
    desk = pytester.path / "desk.toml"
    desk.write_text('[devices.gone]\nboard = "nucleo_l4r5zi"\nkind = "serial"\nport = "/dev/ttyNOTHERE"\n')
    source = "def test(device): pass"
    options = ("--thumbnet-device", "gone", "--thumbnet-devices", desk)
    done = run(source, *options, "-n", "2")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: gone: 2 processes can't hold one board; leave -n 2 out"])
    run(source, "--thumbnet-device", M4, "-n", "2").assert_outcomes(passed=1)


def test_it_costs_other_tests_nothing(run):
    """It imports none of the heavy packages, nor anything else of ours."""
    source = """
        import subprocess, sys

        def test_imports():
            code = "import sys, thumbnet.tools.pytest_plugin; print(*sys.modules)"
            names = subprocess.check_output([sys.executable, "-c", code], text=True).split()
            assert not {"torch", "tvm", "numpy", "click"} & set(names)
            ours = {name for name in names if name.startswith("thumbnet.")}
            assert ours == {"thumbnet.tools", "thumbnet.tools.pytest_plugin"}
    """
    run(source).assert_outcomes(passed=1)
