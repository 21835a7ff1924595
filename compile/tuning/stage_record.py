"""One measurement of one stage, and the line of JSON it is kept as."""

from __future__ import annotations

import statistics
import zlib
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from thumbnet.compile.manifest import STRICT, Count, Text, first_fault

#: A hundred times what a stage of the longest chain takes.
MOST_LINE_BYTES = 256 << 10

#: What costs are: a number without its kind says nothing.
CostKind = Literal["instructions", "predicted cycles", "cycles", "seconds on the board"]
#: Kinds that emulated boards give, and those that take a real one.
EMULATED_KINDS: tuple[CostKind, ...] = ("predicted cycles", "instructions")
REAL_KINDS: tuple[CostKind, ...] = ("cycles", "seconds on the board")

_START, _CHECKSUM = b'{"version":', b',"checksum":"'
_DATE = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"


def _check_date(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Cost = Annotated[float, Field(gt=0, le=1e15)]
Feature = Annotated[float, Field(ge=-1e15, le=1e15)]
#: ISO 8601, UTC, whole seconds: the order of the texts is that of the times.
Date = Annotated[str, StringConstraints(pattern=_DATE), AfterValidator(_check_date)]


class StageRecord(BaseModel):
    """One measurement of one stage.

    Parameters
    ----------
    version : int
        Of this format.
    key, kernels : str
        `stage_key.key_of` and `stage_key.kernels_digest`: of what was measured.
    stage : dict
        `stage_key.describe_stage`, for people.
    features : dict or None
        `stage_features.named_features`, for models; None in records older than these.
    layers : list of str
        PyTorch's names of its layers in the network it was measured in.
    predicted : float
        The kernels' own estimate: instructions, or cycles where these are kept low and can be predicted.
    kind : str
        What `samples` are; what the search kept low follows from it.
    right : bool
        Whether the stage gave the reference's bytes.
    samples : list of float
        Raw, in the order taken; empty where it did not.
    board, core, device : str
        Where.
    emulated : bool
        Whether the device was no real board.
    identity : str or None
        What tells the board from others of its type, as far as that is known.
    clock_hz : int or None
        The board's, where it is fixed.
    compiler, thumbnet : str
        Versions.
    date : str
        See `Date`.

    Raises
    ------
    ValidationError
        A field is missing, unknown, or says what none can; or two contradict each other.
    """

    model_config = ConfigDict(**STRICT, extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, le=1)] = 1
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]
    kernels: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    stage: dict[Text, Any]
    features: Annotated[dict[Text, Feature], Field(max_length=200)] | None = None
    layers: Annotated[list[Text], Field(min_length=1, max_length=64)]
    predicted: Cost
    kind: CostKind
    right: bool
    samples: Annotated[list[Cost], Field(max_length=1000)]
    board: Text
    core: Text
    device: Text
    emulated: bool
    identity: Text | None = None
    clock_hz: Annotated[Count, Field(gt=0)] | None
    compiler: Text
    thumbnet: Text
    date: Date

    @model_validator(mode="after")
    def check_whole(self) -> StageRecord:
        """Refuse costs of wrong bytes, and times that no emulator tells."""
        if self.right != bool(self.samples):
            raise ValueError(f"right is {self.right}, with {len(self.samples)} samples")
        if self.emulated and self.kind in REAL_KINDS:
            raise ValueError(f"an emulated device gives no {self.kind}")
        return self

    @property
    def cost(self) -> float:
        """The median of the samples, infinite where the stage gave wrong bytes."""
        return statistics.median(self.samples) if self.samples else float("inf")

    @property
    def spread(self) -> float:
        """How far the middle half of the samples lies apart, as a part of the median; 0 of one sample."""
        if len(self.samples) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / middle


def encode_record(record: StageRecord) -> bytes:
    """Return a record's line: an object whose last key is the CRC-32 of all before it."""
    body = record.model_dump_json().encode()[:-1]
    return body + _ending(body) + b"\n"


def decode_record(line: bytes) -> StageRecord:
    """Return the record of a line, with its end of line or without.

    Raises
    ------
    ValueError
        It is none; with what is wrong.
    """
    line = line.removesuffix(b"\n")
    if len(line) > MOST_LINE_BYTES:
        raise ValueError(f"it has {len(line):,} bytes, {MOST_LINE_BYTES:,} at most are read")
    if not begins_record(line):
        raise ValueError("it is no record of a stage")
    body, _, _ = line.rpartition(_CHECKSUM)
    if not body or line != body + _ending(body):
        raise ValueError("its checksum is not that of its content")
    try:
        return StageRecord.model_validate_json(body + b"}")
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error


def begins_record(line: bytes) -> bool:
    """Tell whether a line begins as a record's does, wherever it was cut."""
    return line[: len(_START)] == _START[: len(line)]


def _ending(body: bytes) -> bytes:
    return _CHECKSUM + f'{zlib.crc32(body):08x}"}}'.encode()
