"""A lowered network as libraries for boards that run Linux: one for TVM runtimes, and one with a plain C interface."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import tvm
from tvm import relax, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from thumbnet.compile.emit.emit_c import emit_c, name_stages
from thumbnet.compile.emit.export_library import export_library, find_compiler, tvm_target
from thumbnet.compile.emit.run_tool import run_tool
from thumbnet.compile.plan.lowered_network import LoweredNetwork
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.request import PixelRule
from thumbnet.targets.board import Board

#: As for microcontrollers; the objects go into shared libraries.
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-ffunction-sections", "-fdata-sections")


def build_stage_library(
    lowered: LoweredNetwork,
    name: str,
    board: Board,
    folder: Path,
    *,
    title: str,
    generator: str,
    pixel_rule: PixelRule | None = None,
    progress: Progress = say_nothing,
) -> list[Path]:
    """Compile a network for a board's processor.

    Parameters
    ----------
    lowered : LoweredNetwork
        What to compile.
    name : str
        C identifier: prefix of all symbols and stem of the files.
    board : Board
        Of family cortex-a.
    folder : Path
        Existing folder.
    title, generator, pixel_rule
        As for `emit_c`.
    progress : callable
        Told before each step what is done next.

    Returns
    -------
    list of Path
        ``<name>.so`` with ``main`` and ``layers`` for a TVM runtime; ``lib<name>.a``, ``lib<name>.so`` and ``<name>.h``
        for programs without one.

    Raises
    ------
    ToolchainError
        The board's compiler is missing or fails.
    """
    compiler = find_compiler(board.cross_compiler)
    with tempfile.TemporaryDirectory(prefix=".library-", dir=folder) as aside_name:
        aside = Path(aside_name).resolve()
        progress("writing the C sources")
        emit_c(lowered, name, aside, title=title, generator=generator, pixel_rule=pixel_rule, for_tvm=True)
        sources = (f"{name}.c", f"{name}_layers.c", f"{name}_weights.c", f"{name}_tvm.c")
        for source in sources:
            progress(f"compiling {source} for {board.core}")
            run_tool([compiler, *board.core_flags, *FLAGS, "-c", source], aside)
        *network, for_tvm = [aside / source.replace(".c", ".o") for source in sources]
        files = [folder / file for file in (f"{name}.so", f"lib{name}.a", f"lib{name}.so", f"{name}.h")]
        progress("linking the libraries")
        executable = tvm.compile(write_calls(lowered, name), target=tvm_target(board))
        export_library(executable, board, files[0], [*network, for_tvm])
        binutils = compiler.removesuffix("gcc")
        run_tool([f"{binutils}ar", "rcsD", f"lib{name}.a", *(file.name for file in network)], aside)
        soname = f"-Wl,-soname,lib{name}.so"
        run_tool([compiler, "-shared", soname, *(file.name for file in network), "-o", f"lib{name}.so"], aside)
        for file in files[1:]:
            shutil.copyfile(aside / file.name, file)
        return files


def write_calls(lowered: LoweredNetwork, name: str) -> tvm.IRModule:
    """Return the Relax module that calls a network's stages, one after the other.

    ``main`` takes the image ``[1, H, W, C]`` and returns ``[1, classes]``, both of the network's type; ``layers``
    returns every stage's output instead, each as the bytes of its layout. Between stages goes nothing but the order:
    what they compute lies in the network's own arena.
    """
    network = lowered.network
    builder = relax.BlockBuilder()
    symbols = name_stages(name, lowered)
    classes = network.output.output_shape[2]
    for entry in ("main", "layers"):
        image = relax.Var("image", relax.TensorType((1, *network.input_shape), network.dtype))
        with builder.function(entry, [image]):
            with builder.dataflow():
                before: relax.Expr = image
                outputs = []
                for index, (stage, symbol) in enumerate(zip(lowered.stages, symbols, strict=True)):
                    last = index == len(symbols) - 1
                    shape = (1, classes) if last else (1,)
                    before = _call(builder, symbol, before, shape, network.dtype)
                    if entry == "layers":
                        before = _call(builder, f"{symbol}_read", before, (stage.output_layout.size,), "int8")
                        outputs.append(before)
                result = builder.emit_output(before if entry == "main" else relax.Tuple(outputs))
            builder.emit_func_output(result)
    # TVM takes the target of what it links from generated code: without any it would take the computer's own.
    builder.add_func(_stage_count(len(symbols)), f"{name}_stage_count")
    return builder.finalize()


def _stage_count(count: int) -> tirx.PrimFunc:
    """Return a function that writes the number of stages to an int32 ``[1]``."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("stage_count")
        result = T.arg("result", T.Buffer((1,), "int32"))
        T.buffer_store(result, T.int32(count), [0])
    return builder.get().with_attr("global_symbol", "stage_count")


def _call(
    builder: relax.BlockBuilder, symbol: str, before: relax.Expr, shape: tuple[int, ...], dtype: str
) -> relax.Var:
    call = relax.op.call_dps_packed(symbol, [before], relax.TensorType(shape, dtype))
    return builder.emit(call, name_hint=symbol)
