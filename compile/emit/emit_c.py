"""Write a lowered network as plain C99: no malloc, no TVM header, one readable function a layer."""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.emit.c_codegen import generate_body, lower
from thumbnet.compile.kernels.portable import ARITHMETIC_HEADER
from thumbnet.compile.kernels.rolling_stage import READ_ROW
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.lowered_network import LoweredNetwork, Stage
from thumbnet.compile.plan.place_tensors import scratch_name
from thumbnet.compile.request import PixelRule
from thumbnet.compile.symbol_prefix import identifier

_FOLDER = Path(__file__).parent
#: The header of kernels that share their work among threads.
THREADS_HEADER = "thumbnet_threads.h"
#: Bytes; the widest vectors are read and written where this puts them.
ARENA_ALIGNMENT = 16
_CTYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "float32": "float"}


def emit_c(
    lowered: LoweredNetwork,
    name: str,
    folder: Path,
    *,
    title: str,
    generator: str,
    pixel_rule: PixelRule | None = None,
    for_tvm: bool = False,
    caller_arena: bool = False,
    flags: Sequence[str] = (),
) -> list[Path]:
    """Write the sources of a network.

    Parameters
    ----------
    lowered : LoweredNetwork
        What to write.
    name : str
        C identifier: prefix of all symbols and stem of the files.
    folder : Path
        Existing folder.
    title : str
        What the network is, for the comments.
    generator : str
        Who wrote the files, for their first line.
    pixel_rule : PixelRule, optional
        From an image to the input, for the header.
    for_tvm : bool
        Write ``<name>_tvm.c`` too, by which a TVM runtime calls the stages.
    caller_arena : bool
        The functions take the arena from the program instead of having one.
    flags : sequence of str
        What a compiler that makes programs for more than the board has to be told: CMakeLists.txt does.

    Returns
    -------
    list of Path
        The files: header, sources, the kernels' headers, CMakeLists.txt.
    """
    environment = template_environment()
    symbols = name_stages(name, lowered)
    arrays: dict[int, str] = {}
    context = {
        "name": name,
        "NAME": name.upper(),
        "title": title,
        "generator": generator,
        "flags": flags,
        "network": lowered.network,
        "pixel_rule": pixel_rule,
        "pixel_minus_128": pixel_rule is not None and _is_pixel_minus_128(pixel_rule, lowered.network),
        "ctype": _CTYPES[lowered.network.dtype],
        "arena_bytes": lowered.plan.arena_bytes,
        "arena_alignment": ARENA_ALIGNMENT,
        "caller_arena": caller_arena,
        "streamed": lowered.streamed,
        "input_offset": lowered.plan.offsets.get("input"),
        "stages": [
            _stage_context(symbol, stage, lowered, arrays)
            for symbol, stage in zip(symbols, lowered.stages, strict=True)
        ],
        "threads": any(header.name == THREADS_HEADER for header in lowered.headers),
        "kernels_header": lowered.headers[0].name if lowered.headers else None,
        "definitions": list(dict.fromkeys(line for stage in lowered.stages for line in stage.kernel.definitions)),
    }
    _own_kernels(context, lowered, name)
    files = []
    templates = {
        "model.h.j2": f"{name}.h",
        "model.c.j2": f"{name}.c",
        "layers.h.j2": f"{name}_layers.h",
        "layers.c.j2": f"{name}_layers.c",
        "weights.c.j2": f"{name}_weights.c",
        "CMakeLists.txt.j2": "CMakeLists.txt",
    }
    if for_tvm:
        templates["tvm.c.j2"] = f"{name}_tvm.c"
    for template, file in templates.items():
        path = folder / file
        path.write_text(environment.get_template(template).render(context))
        files.append(path)
    for header in (ARITHMETIC_HEADER, *lowered.headers):
        files.append(Path(shutil.copy(header, folder / header.name)))
    return files


def template_environment() -> jinja2.Environment:
    """Return what renders the templates of C files."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML
    )
    environment.globals["in_arena"] = _in_arena
    environment.filters["c_values"] = _c_values
    environment.filters["product"] = math.prod
    environment.filters["c_float"] = _c_float
    environment.filters["c_comment"] = _c_comment
    return environment


def name_stages(name: str, lowered: LoweredNetwork) -> list[str]:
    """Return a symbol for each stage; what the interface, a kernel or another stage has gets an underscore more."""
    functions = {"arena", "input", "layers", "output", "run", "run_layer", "set_threads", READ_ROW}
    interface = functions | {"layer_t", "task_t", "parallel_for_t"}
    taken = {f"{name}_{own}" for own in interface | _kernel_names(lowered)}
    symbols: list[str] = []
    for stage in lowered.stages:
        symbol = f"{name}_{identifier(stage.name)}"
        while symbol in taken:
            symbol += "_"
        taken.add(symbol)
        symbols.append(symbol)
    return symbols


def _own_kernels(context: dict[str, Any], lowered: LoweredNetwork, name: str) -> None:
    """Put the network's name in front of its kernels': to link-time optimization assembly is one file for a program."""
    kernels = "|".join(_kernel_names(lowered) | {READ_ROW})
    of_definition, of_call = re.compile(rf"\b(?:{kernels})\b|(?<=\.L)(?=\w)"), re.compile(rf"\b(?:{kernels})(?=\()")
    context["definitions"] = [of_definition.sub(rf"{name}_\g<0>", line) for line in context["definitions"]]
    for stage in context["stages"]:
        stage["body"] = of_call.sub(rf"{name}_\g<0>", stage["body"])


def _kernel_names(lowered: LoweredNetwork) -> set[str]:
    """Return what the definitions define: the first argument of their macros.

    Of float32 none: it is linked into libraries as objects only, in which its assembly is local.
    """
    if lowered.network.dtype == "float32":
        return set()
    definitions = (line for stage in lowered.stages for line in stage.kernel.definitions)
    return {found[1] for found in (re.match(r"TN_\w+\((\w+)", line) for line in definitions) if found}


def _stage_context(prefix: str, stage: Stage, lowered: LoweredNetwork, arrays: dict[int, str]) -> dict[str, Any]:
    """Return what the templates say of a stage; `arrays` has the symbols of those that were defined before."""
    kernel, offsets = stage.kernel, lowered.plan.offsets
    function = lower(kernel.function)
    constants: dict[str, dict[str, Any]] = {
        key: {
            "symbol": arrays.setdefault(id(array), f"{prefix}_{key}"),
            "array": array,
            "ctype": _CTYPES[array.dtype.name],
        }
        for key, array in kernel.constants.items()
    }
    own = [constant for key, constant in constants.items() if constant["symbol"] == f"{prefix}_{key}"]
    places = {f"input{index}": offsets[source] for index, source in enumerate(stage.sources)}
    places["output"] = offsets[stage.name]
    places |= {parameter: offsets[scratch_name(stage.name, parameter)] for parameter in kernel.scratch}
    parameters: list[str] = []
    arguments: list[str] = []
    # The output may lie over an input where a plan lets it; without that, the compiler may rely on their being apart.
    restrict = "TN_RESTRICT " if _apart(stage, places) else ""
    for parameter in function.params:
        ctype = _CTYPES[str(parameter.ty.element_type)]
        const = "const " if parameter.name in constants or parameter.name.startswith("input") else ""
        parameters.append(f"{const}{ctype} *{restrict}{parameter.name}")
        if parameter.name in constants:
            arguments.append(constants[parameter.name]["symbol"])
        else:
            arguments.append(_in_arena(f"{const}{ctype}", places[parameter.name]))
    return {
        "stage": stage,
        "name": stage.name,
        "variant": kernel.variant,
        "symbol": prefix,
        "parameters": ", ".join(parameters),
        "arguments": ", ".join(arguments),
        "body": generate_body(function),
        "constants": own,
        "offsets": places,
        "output_bytes": stage.output_layout.size,
    }


def _in_arena(ctype: str, offset: int) -> str:
    """Return a place in the arena as a pointer; by way of void where a byte's address may not do for the type."""
    void = "" if ctype.endswith("int8_t") else f"({'const ' * ctype.startswith('const ')}void *)"
    return f"({ctype} *){void}(arena + {offset})"


def _apart(stage: Stage, places: dict[str, int]) -> bool:
    """Tell whether the output shares no byte with an input, and no input is another."""
    inputs = [places[f"input{index}"] for index in range(len(stage.sources))]
    begin, end = places["output"], places["output"] + stage.output_layout.size
    sizes = [layout.size for layout in stage.input_layouts]
    return len(set(inputs)) == len(inputs) and all(
        at >= end or at + size <= begin for at, size in zip(inputs, sizes, strict=True)
    )


def _is_pixel_minus_128(rule: PixelRule, network: Network) -> bool:
    """Tell whether every channel's int8 input is the pixel less 128, by the very arithmetic of float32 inputs."""
    if not isinstance(network, IntegerNetwork):
        return False
    pixels = np.arange(256, dtype=np.float32)[:, None]
    mean, std = (np.array(values, dtype=np.float32) for values in (rule.mean, rule.std))
    return bool((network.input_quant.quantize((pixels - mean) / std) == np.arange(-128, 128)[:, None]).all())


def _c_float(value: float) -> str:
    """Print a float32 so that C reads the same one: 1 has to be 1.0f."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _c_comment(text: str) -> str:
    """Print words in a comment, wrapped at 120 columns; names of files among them must not end it."""
    harmless = " ".join(text.split()).replace("*/", "* /").replace("/*", "/ *")
    return "\n *   ".join(textwrap.wrap(harmless, 100, break_long_words=False, break_on_hyphens=False))


def _c_values(array: NDArray[Any]) -> str:
    """Print an array's values, wrapped at 120 columns."""
    lines: list[str] = []
    line = "   "
    for value in array.reshape(-1).tolist():
        if array.dtype == np.float32:
            text = f" {value.hex()}f,"
        else:
            # -2147483648 is no int literal in C: it is minus 2147483648, which is too large.
            text = f" {value}," if value > -(2**31) else " INT32_MIN,"
        if len(line) + len(text) > 120:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join([*lines, line])
