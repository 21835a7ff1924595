"""The compiler's front door: a PyTorch module in, an artifact on disk out."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from tvm.s_tir import meta_schedule as ms

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.emit.build_library import build_executable, keep_entry
from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.emit.export_library import export_library, find_compiler
from thumbnet.compile.emit.footprint import measure_footprint
from thumbnet.compile.emit.library_example import write_example
from thumbnet.compile.emit.stage_library import build_stage_library
from thumbnet.compile.errors import CompileError, ToolchainError, UnsupportedOperatorError
from thumbnet.compile.kernels.instruction_sets import float_kernels_of
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.golden import make_golden
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.network.network_file import REFERENCE_FILE, save_network
from thumbnet.compile.passes.match_float_layers import match_float_layers
from thumbnet.compile.passes.remove_dead_channels import read_dead_channels
from thumbnet.compile.plan.board_plan import spent_on_ram
from thumbnet.compile.plan.fit import MemoryNeed, check_fit, check_ram_limit
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.plan.stage_graph import can_stream
from thumbnet.compile.plan_stages import objective_of, plan_stages, stages_manifest
from thumbnet.compile.quantize_request import import_network, plans_stages, quantize_input, quantize_network
from thumbnet.compile.replaced_folder import replaced_folder
from thumbnet.compile.request import CompileRequest, check_options, refuse_plan_options
from thumbnet.compile.tuning.records import read_records


def compile_model(request: CompileRequest, folder: Path) -> Artifact:
    """Compile a network into `folder`, which appears whole or not at all.

    Raises
    ------
    CompileError
        Of the specific type for what is wrong: operator, quantization, size, toolchain, folder.
    """
    board, options = request.board, request.options
    check_options(options, board)
    if board.family != "cortex-m":
        find_compiler(board.cross_compiler)  # before the work, not after it
    objective_of(options, board)
    database = None if options.tuning is None or plans_stages(request) else read_records(options.tuning)
    with replaced_folder(folder) as aside:
        host = aside / "host"
        host.mkdir()
        request.write_extra(host)
        if options.quantize == "none":
            own = _compile_float(request, database, aside)
        elif board.artifact == "c":
            own = _compile_sources(request, quantize_network(request), aside)
        elif plans_stages(request):
            own = _compile_stages(request, quantize_network(request), aside)
        else:
            own = _compile_library(request, quantize_network(request), database, aside)
        write_manifest(aside, {**_common_manifest(request), **own, **request.manifest})
        artifact = Artifact.load(aside)
    # Not read again: another run may have put its own there since.
    return Artifact(folder.resolve(), artifact.manifest)


def _compile_sources(request: CompileRequest, module: tvm.IRModule, folder: Path) -> dict[str, Any]:
    network = read_relax(module)
    board, options = request.board, request.options
    if options.stream_input and not can_stream(network):
        first = network.layers[0]
        raise CompileError(
            f"{request.name} starts with {first.name} ({first.kind}): --stream-input needs a convolution over the image"
        )
    lowered, tuned = plan_stages(request, network)
    name = request.c_name
    check_fit(request.name, MemoryNeed.least(lowered), board)
    check_ram_limit(request.name, lowered.plan.arena_bytes, options.ram_limit, board)
    request.progress("writing the C sources")
    files = emit_c(
        lowered,
        name,
        folder,
        title=_title(request),
        generator=_generator(),
        pixel_rule=request.pixel_rule,
        caller_arena=options.arena == "caller",
        # A microcontroller's program says itself what it is built for.
        flags=board.core_flags if board.runs_linux else (),
    )
    built, unknown_because = None, None
    try:
        given = lowered.plan.arena_bytes if options.arena == "caller" else 0
        built = measure_footprint(
            files, name, board, streamed=lowered.streamed, caller_arena_bytes=given, progress=request.progress
        )
    except ToolchainError as error:
        unknown_because = str(error)
    return {
        "kind": "c",
        **check_fit(request.name, MemoryNeed.estimate(lowered) if built is None else built.need, board),
        "objective": objective_of(options, board),
        "streamed_input": lowered.streamed,
        "caller_arena": options.arena == "caller",
        "footprint": {"unknown_because": unknown_because} if built is None else built.as_json(),
        "tuned": tuned is not None,
        **stages_manifest(lowered, tuned),
        **_integer_manifest(request, module, network, folder),
    }


def _compile_stages(request: CompileRequest, module: tvm.IRModule, folder: Path) -> dict[str, Any]:
    network = read_relax(module)
    board, options = request.board, request.options
    lowered, tuned = plan_stages(request, network)
    name = request.c_name
    check_ram_limit(request.name, lowered.plan.arena_bytes, options.ram_limit, board)
    texts = {"title": _title(request), "generator": _generator()}
    build_stage_library(lowered, name, board, folder, **texts, pixel_rule=request.pixel_rule, progress=request.progress)
    write_example(network, name, board, folder, **texts, pixel_rule=request.pixel_rule)
    return {
        "kind": "library",
        "objective": objective_of(options, board),
        "tuned": tuned is not None,
        **stages_manifest(lowered, tuned),
        **_integer_manifest(request, module, network, folder),
    }


def _compile_library(
    request: CompileRequest, module: tvm.IRModule, database: ms.database.Database | None, folder: Path
) -> dict[str, Any]:
    refuse_plan_options(request.options, request.board)
    network = read_relax(module)
    name = request.c_name
    # The one that is deployed, and beside it one that gives every layer's output, for tests.
    libraries = {"main": f"{name}.so", "layers": f"{name}_layers.so"}
    for entry, file in libraries.items():
        request.progress(f"compiling {file} with TVM")
        executable = build_executable(keep_entry(module, entry), request.board, database)
        export_library(executable, request.board, folder / file)
    return {
        "kind": "library",
        "layers_library": libraries["layers"],
        "tuned": request.options.tuning is not None,
        **_integer_manifest(request, module, network, folder),
        "layers": [
            {"name": layer.name, "kind": layer.kind, "shape": layer.output_shape, "macs": layer.macs}
            for layer in network.layers
        ],
    }


def _integer_manifest(
    request: CompileRequest, module: tvm.IRModule, network: IntegerNetwork, folder: Path
) -> dict[str, Any]:
    request.progress("running the reference on the golden vectors")
    images = [quantize_input(network, image) for image in request.golden_images or request.calibration]
    inputs, outputs = make_golden(network, images)
    np.savez_compressed(folder / "golden.npz", inputs=inputs, outputs=outputs)
    save_network(network, folder / REFERENCE_FILE)
    output = network.output
    removed = read_dead_channels(module)
    return {
        "dtype": "int8",
        "macs": network.macs,
        "dead_channels": "kept" if removed is None else {"removed": removed},
        "input": {
            "shape": network.input_shape,
            "dtype": "int8",
            "scale": network.input_quant.scale,
            "zero_point": network.input_quant.zero_point,
        },
        "output": {
            "shape": (output.output_shape[2],),
            "dtype": "int8",
            "scale": output.output_quant.scale,
            "zero_point": output.output_quant.zero_point,
        },
        "golden": {"file": "golden.npz", "outputs": outputs.tolist()},
    }


def _compile_float(request: CompileRequest, database: ms.database.Database | None, folder: Path) -> dict[str, Any]:
    module = import_network(request)
    kernels, unplanned = float_kernels_of(request.board), None
    if kernels is not None and request.options.tuning is None:
        try:
            network = match_float_layers(module)
        except UnsupportedOperatorError as error:
            if request.options.ram_limit:
                raise CompileError(f"{request.name}: --ram-limit needs layers of our own kernels; {error}") from error
            unplanned = str(error)
        else:
            return _compile_float_stages(request, network, kernels, folder)
    refuse_plan_options(request.options, request.board)
    request.progress("compiling the layers with TVM")
    executable = build_executable(module, request.board, database)
    export_library(executable, request.board, folder / f"{request.c_name}.so")
    with torch.no_grad():
        classes = int(request.module(torch.zeros(1, *request.input_shape)).shape[-1])
    tuned = request.options.tuning is not None
    why = {} if unplanned is None else {"unplanned_because": unplanned}
    return {"kind": "library", "tuned": tuned, **_float_manifest(request, classes), "layers": [], **why}


def _compile_float_stages(
    request: CompileRequest, network: FloatNetwork, kernels: type[RollingStage], folder: Path
) -> dict[str, Any]:
    request.progress("planning the layers")
    board = request.board
    lowered = lower_network(
        network,
        request.options.ram_limit,
        kernels=kernels,
        spent_on_ram=spent_on_ram(board),
        caches=board.caches,
    )
    check_ram_limit(request.name, lowered.plan.arena_bytes, request.options.ram_limit, request.board)
    texts = {"title": _title(request), "generator": _generator()}
    build_stage_library(
        lowered,
        request.c_name,
        request.board,
        folder,
        **texts,
        pixel_rule=request.pixel_rule,
        progress=request.progress,
    )
    return {
        "kind": "library",
        "tuned": False,
        "macs": network.macs,
        **_float_manifest(request, network.output.output_shape[2]),
        **stages_manifest(lowered),
    }


def _float_manifest(request: CompileRequest, classes: int) -> dict[str, Any]:
    channels, height, width = request.input_shape
    return {
        "dtype": "float32",
        "input": {"shape": (height, width, channels), "dtype": "float32"},
        "output": {"shape": (classes,), "dtype": "float32"},
    }


def _common_manifest(request: CompileRequest) -> dict[str, Any]:
    return {
        "name": request.c_name,
        "model": request.name,
        "board": request.board.name,
        "core": request.board.core,
        "versions": {
            **{package: version(package) for package in ("thumbnet", "apache-tvm", "torch", "torchao", "numpy")},
            "python": platform.python_version(),
        },
    }


def _title(request: CompileRequest) -> str:
    numbers = "float32" if request.options.quantize == "none" else "quantized to int8"
    return f"{request.name} for {request.board.name} ({request.board.core}), {numbers}"


def _generator() -> str:
    versions = f"thumbnet {version('thumbnet')} with Apache TVM {version('apache-tvm')}"
    return f"Generated by {versions}; edit the network, not this file."
