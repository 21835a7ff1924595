import pytest
from hypothesis import given
from hypothesis import strategies as st

from thumbnet.runtime_tests.mcu.framing import LONGEST_FRAME, FrameDamagedError, FrameReader, decode_frame, encode_frame

PAYLOADS = st.binary(max_size=1200) | st.integers(0, 600).map(lambda n: b"\x01" * n) | st.integers(0, 600).map(bytes)


@given(PAYLOADS)
def test_any_payload_comes_back(payload):
    frame = encode_frame(payload)
    assert (frame[0], frame.index(b"\0", 1)) == (0, len(frame) - 1)
    assert decode_frame(frame) == decode_frame(frame[1:-1]) == payload


@given(PAYLOADS, st.data())
def test_any_changed_byte_is_noticed(payload, data):
    frame = bytearray(encode_frame(payload))
    at = data.draw(st.integers(1, len(frame) - 2))
    frame[at] ^= data.draw(st.integers(1, 255))
    for part in bytes(frame).split(b"\0"):
        if part:
            with pytest.raises(FrameDamagedError):
                decode_frame(part)


@given(PAYLOADS, st.data())
def test_lost_bytes_are_noticed(payload, data):
    frame = encode_frame(payload)[1:-1]
    start = data.draw(st.integers(0, len(frame) - 1))
    end = data.draw(st.integers(start + 1, min(start + 4, len(frame))))
    with pytest.raises(FrameDamagedError):
        decode_frame(frame[:start] + frame[end:])


@given(st.lists(PAYLOADS, max_size=5), st.lists(st.integers(1, 300)))
def test_frames_are_cut_from_a_stream_however_it_comes(payloads, sizes):
    stream = b"\0" + b"".join(encode_frame(payload) for payload in payloads)
    reader, frames = FrameReader(), []
    for size in [*sizes, len(stream)]:
        frames += reader.take(stream[:size])
        stream = stream[size:]
    assert [decode_frame(frame) for frame in frames] == payloads


def test_endless_noise_takes_no_memory_and_ends_at_the_next_frame():
    reader = FrameReader()
    for _ in range(1000):
        assert reader.take(b"\x07" * 1000) == []
    assert len(reader._pending) == LONGEST_FRAME
    noise, frame = reader.take(encode_frame(b"after"))
    assert len(noise) == LONGEST_FRAME and decode_frame(frame) == b"after"
    with pytest.raises(FrameDamagedError):
        decode_frame(noise)
