"""FoldQuantizedMoves: before and after, where it does not apply, and in numbers."""

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from thumbnet.compile.passes.fold_quantized_moves import FoldQuantizedMoves

# fmt: off


@I.ir_module
class Moves:
    @R.function
    def main(x: R.Tensor((1, 2, 3, 3), "int8")) -> R.Tensor((1, 40), "int8"):
        with R.dataflow():
            real = R.dequantize(x, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            padded = R.nn.pad(real, pad_width=[0, 0, 0, 0, 0, 1, 1, 1], pad_value=0.0, pad_mode="constant")
            q = R.quantize(padded, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="int8", axis=-1)
            again = R.dequantize(q, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            flat = R.reshape(again, R.shape([1, 40]))
            out = R.quantize(flat, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="int8", axis=-1)
            R.output(out)
        return out


@I.ir_module
class MovesExpected:
    @R.function
    def main(x: R.Tensor((1, 2, 3, 3), "int8")) -> R.Tensor((1, 40), "int8"):
        with R.dataflow():
            q = R.nn.pad(x, pad_width=[0, 0, 0, 0, 0, 1, 1, 1], pad_value=7.0, pad_mode="constant")
            out = R.reshape(q, R.shape([1, 40]))
            R.output(out)
        return out


@I.ir_module
class Pair:
    @R.function
    def main(x: R.Tensor((4,), "int8")) -> R.Tensor((4,), "int8"):
        with R.dataflow():
            moved = R.reshape(x, R.shape([4]))
            real = R.dequantize(moved, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            out = R.quantize(real, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="int8", axis=-1)
            R.output(out)
        return out


@I.ir_module
class PairExpected:
    @R.function
    def main(x: R.Tensor((4,), "int8")) -> R.Tensor((4,), "int8"):
        with R.dataflow():
            moved = R.reshape(x, R.shape([4]))
            out = moved
            R.output(out)
        return out


@I.ir_module
class OtherScale:
    @R.function
    def main(x: R.Tensor((1, 2, 3, 3), "int8")) -> R.Tensor((1, 2, 4, 5), "int8"):
        with R.dataflow():
            real = R.dequantize(x, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            padded = R.nn.pad(real, pad_width=[0, 0, 0, 0, 0, 1, 1, 1], pad_value=0.0, pad_mode="constant")
            out = R.quantize(padded, R.const(0.25, "float32"), R.const(7, "int8"), out_dtype="int8", axis=-1)
            R.output(out)
        return out


@I.ir_module
class OtherZeroPoint:
    @R.function
    def main(x: R.Tensor((4,), "int8")) -> R.Tensor((2, 2), "int8"):
        with R.dataflow():
            real = R.dequantize(x, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            moved = R.reshape(real, R.shape([2, 2]))
            out = R.quantize(moved, R.const(0.5, "float32"), R.const(6, "int8"), out_dtype="int8", axis=-1)
            R.output(out)
        return out


@I.ir_module
class PaddedByOne:
    """A padding by another value than zero is no zero point."""

    @R.function
    def main(x: R.Tensor((1, 1, 1, 1), "int8")) -> R.Tensor((1, 1, 3, 3), "int8"):
        with R.dataflow():
            real = R.dequantize(x, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            padded = R.nn.pad(real, pad_width=[0, 0, 0, 0, 1, 1, 1, 1], pad_value=1.0, pad_mode="constant")
            out = R.quantize(padded, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="int8", axis=-1)
            R.output(out)
        return out


@I.ir_module
class Computes:
    @R.function
    def main(x: R.Tensor((4,), "int8")) -> R.Tensor((4,), "int8"):
        with R.dataflow():
            real = R.dequantize(x, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="float32", axis=-1)
            positive = R.nn.relu(real)
            out = R.quantize(positive, R.const(0.5, "float32"), R.const(7, "int8"), out_dtype="int8", axis=-1)
            R.output(out)
        return out

# fmt: on


def _check(before, expected):
    after = FoldQuantizedMoves()(before)
    relax.analysis.well_formed(after)
    tvm.ir.assert_structural_equal(after, expected, map_free_vars=True)
    return after


def test_pads_and_reshapes_move_int8():
    _check(Moves, MovesExpected)


def test_a_bare_pair_goes_away():
    _check(Pair, PairExpected)


def test_it_stays_where_the_scale_changes():
    _check(OtherScale, OtherScale)


def test_it_stays_where_the_zero_point_changes():
    _check(OtherZeroPoint, OtherZeroPoint)


def test_it_stays_where_the_padding_is_no_zero():
    _check(PaddedByOne, PaddedByOne)


def test_it_stays_where_something_is_computed():
    _check(Computes, Computes)


def _run(module, data):
    legal = relax.transform.LegalizeOps()(module)
    machine = relax.VirtualMachine(tvm.compile(legal, target="llvm"), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(data)).numpy()


def test_the_numbers_stay():
    data = np.random.default_rng(0).integers(-128, 128, (1, 2, 3, 3)).astype(np.int8)
    after = _run(FoldQuantizedMoves()(Moves), data)
    np.testing.assert_array_equal(after, _run(Moves, data))
    expected = np.pad(data, ((0, 0), (0, 0), (0, 1), (1, 1)), constant_values=7)
    np.testing.assert_array_equal(after.reshape(expected.shape), expected)
