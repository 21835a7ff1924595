"""TVM's descriptions of the vector instructions that schedules may use, without those nothing here can use."""

from __future__ import annotations

import importlib
import importlib.util
import sys

_PACKAGE = "tvm.s_tir.tensor_intrin"
#: Of the Arm cores, of what they share with others, and of the host.
_MODULES = ("dot_product_common", "arm_cpu", "x86")


def load_tensor_intrinsics() -> None:
    """Register the tensor intrinsics of Arm and x86 processors.

    TVM's package imports all of its modules, and parsing those of GPUs takes 10 to 20 seconds in every process, which
    MetaSchedule's tuning context and its builders' workers otherwise pay. So the package stands here without its
    ``__init__`` having run; import of a single module of it works as ever. Call it before tuning, in each process.
    """
    import tvm.s_tir  # noqa: F401, PLC0415 - the parent has to be there first

    if _PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(_PACKAGE)
        assert spec is not None
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    for name in _MODULES:
        importlib.import_module(f"{_PACKAGE}.{name}")
