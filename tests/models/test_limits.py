"""What is read of a file has bounds, and what isn't a weights file, or none read here, is called what it is."""

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tflite
import torch

from thumbnet.models import weights_file
from thumbnet.models.preprocessing import hosted_preprocessing
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.variants import ModelSpec, build_model

from .state_dicts import V1, assert_refused


@pytest.fixture
def own(tmp_path):
    spec = ModelSpec(V1, "v1", 0.25, 64, 5)
    path = tmp_path / "own.pt"
    write_checkpoint(path, build_model(spec), spec, hosted_preprocessing(64, 5), {})
    return path


def test_only_regular_files_are_opened(tmp_path):
    assert "not a regular file" in assert_refused(tmp_path, V1)
    assert "not a regular file" in assert_refused(Path("/dev/zero"), V1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Reading it would wait for a writer for ever.
    assert "not a regular file" in assert_refused(pipe, V1)


def test_large_files_are_not_read(tmp_path):
    path = tmp_path / "large.pt"
    with path.open("wb") as file:
        file.truncate(weights_file.LARGEST_BYTES + 1)
    assert "has 536,870,913 bytes, at most 536,870,912 are read" in assert_refused(path, V1)


def test_archives_that_expand_are_not_read(own):
    with zipfile.ZipFile(own, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("own/data/zeros", "w") as member:
        for _ in range(weights_file.LARGEST_BYTES >> 24):
            member.write(bytes(1 << 24))
    assert own.stat().st_size < 10**7
    assert "expands to" in assert_refused(own, V1)


def test_more_than_weights_in_the_pickle_is_not_read(tmp_path):
    path = tmp_path / "text.pt"
    torch.save({"log": "x" * 10**7}, path)
    assert "bytes of it are no weights" in assert_refused(path, V1)


def _pickle(path, body):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/version", "3\n")
    path.write_bytes(out.getvalue())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        # bytearray(7 * 10**9), which would be filled with zeros.
        (b"c__builtin__\nbytearray\n\x8a\x05" + (7 * 10**9).to_bytes(5, "little") + b"\x85R", "bytearray"),
        (b"cposix\nsystem\nX\x04\0\0\0true\x85R", "posix.system"),
        (b"cbuiltins\neval\nX\x04\0\0\x001+1 \x85R", "whole model or object (builtins.eval)"),
        # Deeper than any walk through it should go.
        (b"}X\x01\0\0\0a" * 10**5 + b"K\x01" + b"s" * 10**5, "holds a dict without weights"),
        (b"]" * 10**5 + b"a" * (10**5 - 1), "holds a list without weights"),
        (
            b"}X\x06\0\0\0format"
            + b"X\x13\0\0\0thumbnet-checkpointsX\x07\0\0\0version"
            + b"\x8a\xff"
            + b"\x7f" * 255
            + b"s",
            "v",
        ),
        (b"c" + b"a" * 10**4 + b"\n" + b"b" * 10**4 + b"\n)\x81", "whole model"),
        (b"".join(b"cm\nn%d\n" % i for i in range(20_000)), "damaged"),
        (b"cm\n\0\n)\x81", "damaged"),
    ],
)
def test_pickles_take_no_more_than_their_size(tmp_path, body, says):
    path = tmp_path / "crafted.pt"
    _pickle(path, body)
    assert says in assert_refused(path, V1)


def test_other_archives(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    assert "none of torch.save" in assert_refused(path, V1)


def test_vectors_of_a_tflite_file_that_reach_beyond_it(shared_data, tmp_path):
    whole = (shared_data / "models" / "vww_96_int8.tflite").read_bytes()
    path = tmp_path / "x.tflite"
    random = np.random.default_rng(3)
    # Wherever a vector's length may stand, a huge one: nothing of that size is made.
    for place in random.integers(8 // 4, len(whole) // 4, 60) * 4:
        path.write_bytes(whole[:place] + struct.pack("<I", 0x3FFFFFFF) + whole[place + 4 :])
        try:
            line = assert_refused(path, "vww_96")
        except pytest.fail.Exception:
            continue
        assert str(path) in line


def _patch(whole, place, form, value):
    changed = bytearray(whole)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


def test_fields_of_a_tflite_file(shared_data, tmp_path):
    whole = (shared_data / "models" / "vww_96_int8.tflite").read_bytes()
    path = tmp_path / "x.tflite"
    graph = tflite.Model.GetRootAsModel(whole, 0).Subgraphs(0)
    operator = graph.Operators(4)
    weight = graph.Tensors(operator.Inputs(1))
    inputs = operator._tab.Vector(operator._tab.Offset(6))
    shape = weight._tab.Vector(weight._tab.Offset(4))
    quantization = weight.Quantization()
    scale = quantization._tab.Vector(quantization._tab.Offset(8))
    # The image in place of what the layer before gives; a tensor beyond the last one; weights and bias exchanged.
    patches = [(inputs, "<i", graph.Inputs(0)), (inputs + 4, "<i", graph.TensorsLength()), (inputs, "<i", -1)]
    patches += [(inputs + 4, "<i", operator.Inputs(2)), (inputs + 8, "<i", operator.Inputs(1))]
    patches += [(shape, "<i", value) for value in (-1, 0, 1 << 30)]
    patches += [(scale, "<f", value) for value in (0.0, -1.0, float("nan"), float("inf"), 1e30)]
    assert struct.unpack_from("<i", whole, inputs)[0] == graph.Operators(3).Outputs(0)
    for place, form, value in patches:
        path.write_bytes(_patch(whole, place, form, value))
        line = assert_refused(path, "vww_96")
        assert "damaged" in line or "operator 4" in line or "layer before" in line, (place, value, line)
