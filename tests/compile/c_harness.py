"""Emit a network, build it with the host's compiler and run it: what every layer gives, byte for byte."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network

#: What careful projects ask for.
WARNINGS = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef", "-Werror")
STRICT = ("-std=c99", "-O1", *WARNINGS, "-Wcast-align=strict")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
#: Reads images from stdin and writes each layer's output to stdout.
MAIN = """
#include <stdio.h>
#include "{name}.h"
#if {NAME}_STREAMED_INPUT
#include <string.h>
static int8_t image[{NAME}_INPUT_BYTES];
static int32_t next_row;
static int8_t *{name}_input(void) {{ next_row = 0; return image; }}
void {name}_read_row(int32_t row, int8_t *pixels) {{
    const int32_t bytes = {NAME}_INPUT_WIDTH * {NAME}_INPUT_CHANNELS;
    if (row < next_row)
        __builtin_trap();
    next_row = row + 1;
    memcpy(pixels, image + row * bytes, bytes);
}}
#endif
#if {NAME}_CALLER_ARENA
static uint8_t arena[{NAME}_ARENA_BYTES] __attribute__((aligned({NAME}_ARENA_ALIGNMENT)));
#define {name}_input() {name}_input(arena)
#define {name}_run_layer(layer) {name}_run_layer(arena, layer)
#define {name}_arena() arena
#endif
int main(void) {{
    while (fread({name}_input(), 1, {NAME}_INPUT_BYTES, stdin) == {NAME}_INPUT_BYTES) {{
        for (uint32_t layer = 0; layer < {NAME}_LAYER_COUNT; ++layer) {{
            {name}_run_layer(layer);
            fwrite({name}_arena() + {name}_layers[layer].output_offset, 1, {name}_layers[layer].output_bytes, stdout);
        }}
    }}
    return 0;
}}
"""


def lower_fast(network):
    """Choose the fast kernels: on networks this small the portable ones would often do for want of RAM."""
    return lower_network(network, 1 << 20)


def emit(network, folder, name="net", **options):
    return emit_lowered(lower_fast(network), folder, name, **options)


def emit_lowered(lowered, folder, name="net", **options):
    folder.mkdir(parents=True, exist_ok=True)
    return emit_c(lowered, name, folder, title="a network of the tests", generator="thumbnet's tests", **options)


def build(folder, name="net", flags=(*STRICT, *SANITIZERS), compiler="gcc"):
    """Compile the emitted sources of a folder with a main of the test's, and return the program."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    (folder / "main.c").write_text(MAIN.format(name=name, NAME=name.upper()))
    sources = [f"{name}.c", f"{name}_layers.c", f"{name}_weights.c", "main.c"]
    done = subprocess.run(
        [compiler, *flags, *sources, "-o", "program", "-lm"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "program"


def run_stages(program, lowered, images):
    """Return for each image the output of every stage (a layer, or the last of a chain) by the layer's name."""
    return run_layouts(program, {stage.name: stage.output_layout for stage in lowered.stages}, images)


def run_layouts(program, layouts, images):
    command = [program] if isinstance(program, Path) else program
    done = subprocess.run(command, input=np.stack(images).tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rest = done.stdout
    found = []
    for _ in images:
        found.append({})
        for name, layout in layouts.items():
            found[-1][name], rest = layout.unpack(rest[: layout.size]), rest[layout.size :]
    assert not rest
    return found


def different_layers(program, network, images, layouts=None):
    """Return the names of the layers whose bytes are not the reference's; layouts are `lower_fast`'s by default."""
    if layouts is None:
        layouts = {stage.name: stage.output_layout for stage in lower_fast(network).stages}
    names = []
    for image, found in zip(images, run_layouts(program, layouts, images), strict=True):
        for name, expected in run_reference_layers(network, image).items():
            if name in found and not np.array_equal(found[name], expected):
                names.append(name)
    return names
