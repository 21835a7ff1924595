"""float32 layers shared among threads: the same bits with any number, and no two threads at one place."""

import subprocess

import numpy as np
import pytest

from thumbnet.compile.network.float_reference import run_float_layers

from ..c_harness import emit_lowered
from ..float_networks import float_network, make_float_image
from ..networks import chain_network
from .test_cortex_a_chains import A64, THREADED
from .test_neon_f32_chains import TOLERANCE, lower_whole

GCC = A64[0]

SOURCES = ("net.c", "net_layers.c", "net_weights.c", "threads.c")


@pytest.fixture
def network(tmp_path):
    """A network whose wide layers are worth sharing, more pixels than are packed at a time; its sources in a folder."""
    network = float_network(chain_network((112, 107), (16, 96, 48), "same"), seed=3)
    emit_lowered(lower_whole(network, rows=100), tmp_path)
    (tmp_path / "threads.c").write_text(THREADED)
    return network


def _build(folder, compiler, *flags):
    command = [compiler, "-std=gnu11", *flags, *SOURCES, "-pthread", "-lm", "-o", "threads"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _run(command, image, threads):
    """Return the output's bytes, and into how many pieces a layer was shared at most."""
    given = [] if threads is None else [str(threads)]
    done = subprocess.run([*command, *given], input=image.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, int(done.stderr)


def _check(network, command):
    image = make_float_image(network)
    alone, pieces = _run(command, image, None)
    assert pieces == 0
    expected = run_float_layers(network, image)[network.output.name]
    assert expected.std() > 1e-3
    found = np.frombuffer(alone, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    for threads, pieces in ((1, 0), (2, 2), (3, 3), (4, 4)):
        assert _run(command, image, threads) == (alone, pieces), f"{threads} threads"


@pytest.mark.needs_tools("gcc")
def test_any_number_of_threads_gives_the_same_bits(network, tmp_path):
    """The twins, under the thread sanitizer."""
    _build(tmp_path, "gcc", "-O1", "-fsanitize=thread", "-Wall", "-Wextra", "-Werror")
    _check(network, [tmp_path / "threads"])


@pytest.mark.emulated
@pytest.mark.needs_tools(GCC, "qemu-aarch64")
def test_any_number_of_threads_gives_the_same_bits_on_the_processor(network, tmp_path):
    """The assembly, which packs pixels: each thread has a place of its own for them."""
    _build(tmp_path, GCC, "-O2", "-mcpu=cortex-a72", "-static", "-Wall", "-Wextra", "-Werror")
    _check(network, ["qemu-aarch64", "-cpu", "cortex-a72", tmp_path / "threads"])


@pytest.mark.emulated
@pytest.mark.needs_tools(GCC, "qemu-aarch64")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("of->packed + from * (PACKED)", "of->packed"),  # all pack to one place
        ("of->out + from * (OUT)", "of->out"),  # all write the first pixels
        ("of->first + first * (S)", "of->first"),  # all read the first rows
    ],
)
def test_a_planted_bug_is_seen(network, tmp_path, right, wrong):
    header = tmp_path / "thumbnet_neon_f32.h"
    text = header.read_text()
    assert right in text
    header.write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError, match="threads"):
        _build(tmp_path, GCC, "-O2", "-mcpu=cortex-a72", "-static")
        _check(network, ["qemu-aarch64", "-cpu", "cortex-a72", tmp_path / "threads"])
