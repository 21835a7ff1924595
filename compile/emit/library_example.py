"""What shows how to use a network's C library: an example program, and the CMake file that builds it."""

from __future__ import annotations

from pathlib import Path

from thumbnet.compile.emit.emit_c import template_environment
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.request import PixelRule
from thumbnet.targets.board import Board


def write_example(
    network: IntegerNetwork,
    name: str,
    board: Board,
    folder: Path,
    *,
    title: str,
    generator: str,
    pixel_rule: PixelRule | None = None,
) -> list[Path]:
    """Write ``example.c`` and ``CMakeLists.txt`` beside a library of `build_stage_library`.

    Parameters
    ----------
    network : IntegerNetwork
        The network of the library.
    name : str
        Its C identifier.
    board : Board
        What the library was built for.
    folder : Path
        Where the library lies.
    title, generator : str
        As for `emit_c`.
    pixel_rule : PixelRule, optional
        From a picture to the input; without it the int8 input is taken for ``pixel - 128``.
    """
    quant, channels = network.input_quant, network.input_shape[2]
    context = {
        "name": name,
        "NAME": name.upper(),
        "title": title,
        "generator": generator,
        "board": board,
        "compiler": board.cross_compiler,
        "machine": str(board.llvm["mtriple"]).partition("-")[0],
        "dot_product": board.instruction_set == "dotprod",
        "channels": channels,
        "scale": float(quant.scale),
        "mean": pixel_rule.mean if pixel_rule else [quant.zero_point + 128.0] * channels,
        "deviation": pixel_rule.std if pixel_rule else [1 / quant.scale] * channels,
    }
    environment = template_environment()
    files = []
    for template, file in (("example.c.j2", "example.c"), ("library_CMakeLists.txt.j2", "CMakeLists.txt")):
        files.append(folder / file)
        files[-1].write_text(environment.get_template(template).render(context))
    return files
