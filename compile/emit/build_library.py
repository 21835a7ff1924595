"""From a Relax module to an executable for boards that run Linux."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.s_tir import meta_schedule as ms

from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.compile.errors import TuningError
from thumbnet.compile.network.integer_relax import ENTRIES
from thumbnet.targets.board import Board


def keep_entry(module: tvm.IRModule, entry: str) -> tvm.IRModule:
    """Return a module with one of the entry functions ``main`` and ``layers``, and what that calls."""
    kept = {
        var: function
        for var, function in module.functions.items()
        if var.name_hint == entry or var.name_hint not in ENTRIES
    }
    return tvm.IRModule(kept, attrs=module.attrs)


def fuse_layers(module: tvm.IRModule, board: Board) -> tvm.IRModule:
    """Lower every layer of a module to one TIR function: what is tuned, and what is compiled.

    An integer module's layers are functions already; a float module's operators are fused first.
    """
    entries = [var.name_hint for var in module.get_global_vars() if var.name_hint in ENTRIES]
    with tvm_target(board):
        return tvm.transform.Sequential(
            [
                relax.transform.LegalizeOps(),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.DeadCodeElimination(entries),
            ]
        )(module)


def build_executable(
    module: tvm.IRModule, board: Board, database: ms.database.Database | None = None
) -> relax.VMExecutable:
    """Compile a module for a board.

    Parameters
    ----------
    module : tvm.IRModule
        With ``main`` (and ``layers``), as `integer_relax.write_relax` makes it or from the float frontend.
    board : Board
        Of family cortex-a or host.
    database : Database, optional
        Tuning records (`thumbnet.compile.tuning.records`); layers it has no record for get the default schedule.

    Raises
    ------
    TuningError
        A record can't be applied.
    """
    fused = fuse_layers(module, board)
    target = tvm_target(board)
    if database is not None:
        load_tensor_intrinsics()
        try:
            with target, database, tvm.transform.PassContext(opt_level=3):
                fused = relax.transform.MetaScheduleApplyDatabase()(fused)
        except (RuntimeError, ValueError, TypeError) as error:
            raise TuningError(f"a tuning record can't be applied ({error}); tune again into another folder") from error
    return tvm.compile(fused, target=target)
