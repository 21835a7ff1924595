"""A stand-in for a compiled network, small enough to be read, with the C interface of a real one."""

import contextlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.runtime_tests.mcu import firmware_build

sys.path.insert(0, str(Path(__file__).resolve().parent))
from host_board import FaultyLine, HostBoard

HEADER = """
#ifndef TINY_H
#define TINY_H
#include <stdint.h>
#define TINY_INPUT_BYTES 48
#define TINY_INPUT_CHANNELS 3
#define TINY_OUTPUT_BYTES 3
#define TINY_OUTPUT_SCALE 0.05f
#define TINY_ARENA_BYTES 51
#define TINY_LAYER_COUNT 2
int8_t *tiny_input(void);
const int8_t *tiny_output(void);
void tiny_run(void);
void tiny_run_layer(uint32_t layer);
uint8_t *tiny_arena(void);
typedef struct {
    const char *name;
    uint32_t output_offset, output_bytes;
} tiny_layer_t;
extern const tiny_layer_t tiny_layers[TINY_LAYER_COUNT];
#endif
"""
MAIN = """
#include "tiny.h"
void tiny_scale(int8_t *data);
void tiny_pool(const int8_t *data, int8_t *out);
#ifndef TINY_ARENA_ATTRIBUTE
#define TINY_ARENA_ATTRIBUTE
#endif
static uint8_t arena[TINY_ARENA_BYTES] __attribute__((aligned(16))) TINY_ARENA_ATTRIBUTE;
const tiny_layer_t tiny_layers[TINY_LAYER_COUNT] = {{"scale", 0, 48}, {"pool", 48, 3}};
int8_t *tiny_input(void) { return (int8_t *)arena; }
const int8_t *tiny_output(void) { return (const int8_t *)arena + 48; }
uint8_t *tiny_arena(void) { return arena; }
void tiny_run_layer(uint32_t layer) {
    if (layer == 0) {
        tiny_scale((int8_t *)arena);
    } else {
        tiny_pool((int8_t *)arena, (int8_t *)arena + 48);
    }
}
void tiny_run(void) {
    tiny_run_layer(0);
    tiny_run_layer(1);
}
"""
LAYERS = """
#include "tiny.h"
extern const int8_t tiny_weights[48];
void tiny_scale(int8_t *data);
void tiny_pool(const int8_t *data, int8_t *out);
/* Overwrites its input, as the arena of a real network does. */
void tiny_scale(int8_t *data) {
    for (int i = 0; i < 48; i++) {
        data[i] = (int8_t)((data[i] * tiny_weights[i]) >> 6);
    }
}
void tiny_pool(const int8_t *data, int8_t *out) {
    for (int c = 0; c < 3; c++) {
        int32_t sum = 0;
        for (int i = c; i < 48; i += 3) {
            sum += data[i];
        }
        out[c] = (int8_t)(sum >> 4);
    }
}
"""
WEIGHTS = (np.arange(48) * 37 % 127 - 63).astype(np.int8)


def compute_scale(image):
    return ((image.astype(np.int32).reshape(-1) * WEIGHTS) >> 6).astype(np.int8).reshape(4, 4, 3)


def compute_pool(image):
    return (compute_scale(image).astype(np.int32).sum((0, 1)) >> 4).astype(np.int8)


def make_images(count):
    return np.random.default_rng(7).integers(-128, 128, (count, 4, 4, 3), dtype=np.int8)


def write_artifact(folder, *, header=HEADER, main=MAIN, layers=LAYERS, outputs=None, **manifest):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.h").write_text(header)
    (folder / "tiny.c").write_text(main)
    (folder / "tiny_layers.c").write_text(layers)
    values = ", ".join(map(str, WEIGHTS.tolist()))
    (folder / "tiny_weights.c").write_text(
        f'#include "tiny.h"\nextern const int8_t tiny_weights[48];\nconst int8_t tiny_weights[48] = {{{values}}};\n'
    )
    images = make_images(3)
    if outputs is None:
        outputs = np.stack([compute_pool(image) for image in images])
    np.savez(folder / "golden.npz", inputs=images, outputs=outputs)
    quant = {"dtype": "int8", "scale": 1.0, "zero_point": 0}
    write_manifest(
        folder,
        {
            "name": "tiny",
            "model": "tiny",
            "board": "mps2_an386",
            "core": "cortex-m4",
            "kind": "c",
            "dtype": "int8",
            "golden": {"file": "golden.npz"},
            "input": {"shape": [4, 4, 3], **quant},
            "output": {"shape": [3], **quant},
            "arena_bytes": 51,
            "layers": [{"name": "scale", "shape": [4, 4, 3]}, {"name": "pool", "shape": [3]}],
            **manifest,
        },
    )
    return Artifact.load(folder)


class StandIn:
    """What the tests need of the stand-in: its sources to be varied, and what it must compute."""

    HEADER, MAIN, LAYERS = HEADER, MAIN, LAYERS
    write_artifact = staticmethod(write_artifact)
    make_images = staticmethod(make_images)
    compute_scale = staticmethod(compute_scale)
    compute_pool = staticmethod(compute_pool)


@pytest.fixture(scope="session")
def stand_in():
    return StandIn


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Artifact:
    return write_artifact(Path(tmp_path_factory.mktemp("tiny")) / "artifact")


@pytest.fixture(scope="session")
def host_program(tiny, tmp_path_factory):
    """The firmware built for this computer, with its sanitizers."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("host")
    (folder / "golden.c").write_text(firmware_build.golden_source(tiny))
    firmware = [firmware_build.FIRMWARE / name for name in ("rpc.c", "network_calls.c", "frame.c")]
    sources = [*firmware, Path(__file__).with_name("port_host.c"), folder / "golden.c", *tiny.folder.glob("*.c")]
    command = ["gcc", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += ["-DTN_MODEL=tiny", "-DTN_MODEL_UPPER=TINY", "-DTN_MODEL_HEADER=<tiny.h>", "-DTN_MODEL_HASH=abc"]
    command += ["-DBOARD=host", "-iquote", str(firmware_build.FIRMWARE), "-I", str(tiny.folder), *map(str, sources)]
    subprocess.run([*command, "-o", str(folder / "program")], check=True)
    return folder / "program"


@pytest.fixture
def make_line(host_program):
    """Give lines to boards of their own; see `host_board.FaultyLine`."""
    with contextlib.ExitStack() as lines:

        def make(seed=0, **options):
            line = FaultyLine(HostBoard(host_program), random.Random(seed), **options)
            lines.callback(line.close)
            return line

        yield make
