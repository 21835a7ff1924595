"""A record's line: read as it was written, or refused with what is wrong."""

import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbnet.compile.tuning.stage_record import MOST_LINE_BYTES, begins_record, decode_record, encode_record

from .stage_record_files import make_record


def signed(fields):
    """Return a line with any content whose checksum is right."""
    body = json.dumps(fields, separators=(",", ":")).encode()[:-1]
    return body + f',"checksum":"{zlib.crc32(body):08x}"}}\n'.encode()


def fields_of(**changes):
    return make_record().model_dump() | changes


def test_a_line_is_one_json_object_and_reads_as_it_was_written():
    record = make_record(3, layers=["a", "h\u00e4\n"[:2]], samples=[0.1, 1e15], identity="192.168.1.2:9190 pi4")
    line = encode_record(record)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert {**record.model_dump(), "checksum": line[-11:-3].decode()} == json.loads(line)
    assert decode_record(line) == decode_record(line[:-1]) == record


def test_any_bit_that_is_changed_is_noticed():
    line = encode_record(make_record())
    for at in range(len(line) - 1):
        for bit in range(8):
            changed = bytearray(line)
            changed[at] ^= 1 << bit
            with pytest.raises(ValueError, match=r"."):
                decode_record(bytes(changed))


@given(st.binary(max_size=300))
def test_whatever_else_stands_there_is_refused(line):
    with pytest.raises(ValueError, match=r"."):
        decode_record(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"null", b'{"version":1}', b'{"version":' + b"[" * 100_000, b'{"version":1,"checksum":"00000000"}'],
)
def test_json_of_something_else_is_refused(line):
    with pytest.raises(ValueError, match=r"."):
        decode_record(line)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version: input should be less than or equal to 1, not 2"),
        ({"version": True}, "version"),
        ({"samples": [-1.0]}, "samples"),
        ({"samples": [math.nan]}, "samples"),
        ({"samples": [math.inf]}, "samples"),
        ({"samples": ["1"]}, "samples"),
        ({"samples": [1.0] * 1001}, "samples"),
        ({"kind": "guesses"}, "kind"),
        ({"layers": []}, "layers"),
        ({"layers": ["x"] * 65}, "layers"),
        ({"layers": ["\x1b[2J"]}, "layers"),
        ({"key": "../x"}, "key"),
        ({"kernels": "F" * 16}, "kernels"),
        ({"stage": []}, "stage"),
        ({"board": ""}, "board"),
        ({"board": "x" * 1001}, "board"),
        ({"emulated": 1}, "emulated"),
        ({"clock_hz": 0}, "clock_hz"),
        ({"predicted": 0.0}, "predicted"),
        ({"date": "2026-13-01T00:00:00+00:00"}, "date"),
        ({"date": "2026-01-01T00:00:00+02:00"}, "date"),
        ({"date": "yesterday"}, "date"),
        ({"unknown": 1}, "unknown"),
        ({"right": False}, "right is False, with 1 samples"),
        ({"samples": []}, "right is True, with 0 samples"),
        ({"kind": "cycles"}, "an emulated device gives no cycles"),
        ({"kind": "seconds on the board"}, "an emulated device gives no seconds on the board"),
    ],
)
def test_a_record_that_says_what_none_can_is_refused(changes, says):
    with pytest.raises(ValueError, match=says) as caught:
        decode_record(signed(fields_of(**changes)))
    assert "\n" not in str(caught.value)


def test_a_field_that_is_missing_is_named():
    fields = fields_of()
    del fields["device"]
    with pytest.raises(ValueError, match="device: field required"):
        decode_record(signed(fields))
    assert decode_record(signed(fields_of())) == make_record()


def test_a_line_without_end_is_not_taken_apart():
    with pytest.raises(ValueError, match=f"has 300,000 bytes, {MOST_LINE_BYTES:,} at most"):
        decode_record(b'{"version":' + b"1" * (300_000 - 11))


def test_the_cost_is_the_median_and_wrong_bytes_have_none():
    assert make_record(samples=[5.0, 1.0, 9.0]).cost == 5
    assert make_record(samples=[5.0, 1.0]).cost == 3
    assert make_record(samples=[], right=False).cost == math.inf


def test_spread_is_the_middle_halfs_part_of_the_median():
    assert make_record(samples=[5.0]).spread == make_record(samples=[], right=False).spread == 0
    assert make_record(samples=[4.0, 3.0, 1.0, 5.0, 100.0]).spread == pytest.approx(0.5)


def test_where_a_record_was_cut_it_still_begins_like_one():
    line = encode_record(make_record())
    assert all(begins_record(line[:end]) for end in range(len(line)))
    assert not any(map(begins_record, (b"[", b"my notes", b'{"versio ', b"\n", b"\0")))
