"""What a manifest.json may say: every key that is read of one, with its type and range.

A key that code reads is a line here; what isn't read may stand in a manifest as it likes. The models are for checking
only: whoever reads a manifest takes it as the plain dict it is in the file.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.file_access import read_file

MANIFEST = "manifest.json"
FORMAT = 1
GOLDEN_FILE = "golden.npz"
#: What a folder's manifest says that is for a board to run, and holds no network.
SERVER_KIT = "server kit"
#: And of one that is for other build systems, with a network's sources in it.
PACKAGE = "package"

MOST_MANIFEST_BYTES = 4 << 20
#: Elements of an input or a layer's output: several times those of the largest MobileNet.
MOST_ELEMENTS = 1 << 24


def _check_file_name(name: str) -> str:
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or ".." in parts:
        raise ValueError("points outside the artifact")
    if any(part in ("", ".") or len(part.encode()) > 255 for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", name):
        raise ValueError("is no name of a file")
    if name == MANIFEST:
        raise ValueError("can't list itself")
    return name


def _limit_elements(shape: list[int]) -> list[int]:
    if math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"has {math.prod(shape):,} elements, {MOST_ELEMENTS:,} at most are read")
    return shape


Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
#: Of a network: part of the names of C functions and macros.
Identifier = Annotated[str, StringConstraints(max_length=128, pattern=r"^[a-z_][a-z0-9_]*$")]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_check_file_name)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Int8 = Annotated[int, Field(ge=-128, le=127)]
Extent = Annotated[int, Field(ge=1, le=1 << 16)]
#: Bytes, instructions, multiply-accumulates.
Count = Annotated[int, Field(ge=0, le=1 << 50)]
#: Of a shape.
check_elements = AfterValidator(_limit_elements)
Dtype = Literal["int8", "float32"]
#: A key that may be left out; null isn't the same.
ABSENT: Any = None


#: Types as they are in the file, nothing converted, and no nan.
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Part(BaseModel):
    """Something with keys; those that nobody reads are let through."""

    model_config = ConfigDict(**STRICT, extra="allow")


class Tensor(Part):
    """The network's input or output, without the batch."""

    shape: Annotated[list[Extent], Field(min_length=1, max_length=3), check_elements]
    dtype: Dtype
    scale: Annotated[float, Field(gt=0)] = 1.0
    zero_point: Int8 = 0


class LayerLayout(Part):
    """How a stage's output lies in the arena, as in `thumbnet.compile.kernels.layouts.Layout`."""

    model_config = ConfigDict(extra="forbid")

    shape: Annotated[list[Extent], Field(min_length=3, max_length=3), check_elements]
    element_bytes: Literal[1, 2, 4]
    first: Count
    row_bytes: Count
    pixel_bytes: Count
    channel_bytes: Count
    size: Count
    border: Annotated[list[Count], Field(min_length=4, max_length=4)] = [0, 0, 0, 0]

    @model_validator(mode="after")
    def check_end(self) -> LayerLayout:
        """Refuse a last value that lies behind the end."""
        strides = (self.row_bytes, self.pixel_bytes, self.channel_bytes)
        steps = sum((extent - 1) * stride for extent, stride in zip(self.shape, strides, strict=True))
        if self.first + steps + self.element_bytes > self.size:
            raise ValueError(f"its values reach beyond its {self.size:,} bytes")
        return self


class Tuning(Part):
    """What a plan was chosen by: how many of its stages were measured, and what these cost together."""

    kind: Text
    measured_stages: Count
    measured_cost: Annotated[float, Field(ge=0)]
    shipped: bool = False


class ManifestLayer(Part):
    """A stage of C sources, or a layer of a library."""

    name: Text
    shape: Annotated[list[Extent], Field(min_length=1, max_length=3), check_elements]
    layers: list[Text] = []
    macs: Count = 0
    kernel: Text = "-"
    kind: Text = "-"
    predicted_instructions: Count = 0
    predicted_cycles: Count | None = None
    arena_offset: Count = 0
    layout: LayerLayout = ABSENT

    @model_validator(mode="after")
    def check_layout(self) -> ManifestLayer:
        """Refuse a layout of another tensor."""
        if "layout" in self.model_fields_set and math.prod(self.layout.shape) != math.prod(self.shape):
            raise ValueError(f"its layout is of {self.layout.shape}, its shape {self.shape}")
        return self


class Bank(Part):
    """A memory of the board, and what the network takes of it."""

    name: Text
    used_bytes: Count
    bytes: Count


class Memories(Part):
    """Where arena and stack lie, and how full each memory is."""

    arena: Text
    stack: Text
    banks: list[Bank]


class Golden(Part):
    """The golden vectors."""

    file: Literal["golden.npz"]
    outputs: list[list[Int8]] = []


class RamChoice(Part):
    """What another limit on RAM would give."""

    arena_bytes: Count
    predicted_instructions: Count
    predicted_cycles: Count | None = None


class ChannelCounts(Part):
    """What a network holds."""

    channels: Count
    macs: Count
    constant_bytes: Count


class RemovedChannels(ChannelCounts):
    """What was left out of a network."""

    before: ChannelCounts


class DeadChannels(Part):
    """The channels that were proven to have no influence."""

    removed: RemovedChannels


class Footprint(Part):
    """What the C sources take on the board, or why that isn't known."""

    unknown_because: Text = "-"
    code_bytes: Count = 0
    constant_bytes: Count = 0
    library_bytes: Count = 0
    static_bytes: Count = 0
    stack_bytes: Count | None = None
    stack_unknown_because: Text | None = None


class Weights(Part):
    """Where the weights are from."""

    file: Text | None


class Quantization(Part):
    """Where the ranges are from."""

    mode: Text
    ranges: Text


class Manifest(Part):
    """The whole file."""

    format: Literal[1]
    name: Identifier
    model: Text
    board: Text
    core: Text
    kind: Literal["c", "library"]
    dtype: Dtype
    input: Tensor
    output: Tensor
    layers: Annotated[list[ManifestLayer], Field(max_length=10_000)]
    files: Annotated[dict[FileName, Sha256], Field(min_length=1, max_length=10_000)]
    golden: Golden = ABSENT
    layers_library: FileName = ABSENT
    tuned: bool = False
    tuning: Tuning = ABSENT
    macs: Count = 0
    arena_bytes: Count = 0
    constant_bytes: Count = 0
    predicted_instructions: Count = 0
    predicted_cycles: Count | None = None
    objective: Literal["cycles", "instructions"] = "instructions"
    streamed_input: bool = False
    caller_arena: bool = False
    ram_choices: list[RamChoice] = []
    footprint: Footprint = ABSENT
    memories: Memories = ABSENT
    dead_channels: Literal["kept"] | DeadChannels = "kept"
    weights: Weights = ABSENT
    quantization: Quantization = ABSENT
    versions: dict[Text, Text] = {}

    @model_validator(mode="after")
    def check_whole(self) -> Manifest:
        """Refuse parts that contradict each other."""
        if {self.input.dtype, self.output.dtype} != {self.dtype}:
            raise ValueError(f"dtype is {self.dtype}, the input's {self.input.dtype}, the output's {self.output.dtype}")
        if len(self.input.shape) != 3 or len(self.output.shape) != 1:
            raise ValueError(f"input and output are {self.input.shape} and {self.output.shape}, not HWC and classes")
        if self.kind == "c" and self.dtype != "int8":
            raise ValueError(f"C sources are int8, dtype is {self.dtype}")
        if self.dtype == "int8" and not self.layers:
            raise ValueError("lists no layers")
        if len({layer.name for layer in self.layers}) != len(self.layers):
            raise ValueError("two layers have one name")
        for name in self._needed_files():
            if name not in self.files:
                raise ValueError(f"lists no {name} among its files")
        return self

    def _needed_files(self) -> list[str]:
        given = self.model_fields_set
        if self.dtype == "int8" and "golden" not in given:
            raise ValueError("has no golden vectors")
        own = [f"{self.name}.c", f"{self.name}.h"] if self.kind == "c" else [f"{self.name}.so"]
        return [
            *own,
            *([GOLDEN_FILE] if "golden" in given else []),
            *([self.layers_library] if "layers_library" in given else []),
        ]


class Listing(Part):
    """The part that makes a folder ours, whatever else an older thumbnet wrote."""

    format: Literal[1]
    name: Identifier
    files: Annotated[dict[FileName, Sha256], Field(min_length=1)]


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest that holds what `Manifest` says.

    Raises
    ------
    ArtifactError
        It can't be read, is no JSON, of another format or of a server kit, or a key of it is missing or wrong.
    """
    return _read(path, Manifest)


def read_listing(path: Path) -> dict[str, str]:
    """Return the files that a manifest lists, each with its SHA-256.

    Raises
    ------
    ArtifactError
        It is no manifest of ours.
    """
    files: dict[str, str] = _read(path, Listing)["files"]
    return files


def refuse_other_kinds(folder: Path, kind: str) -> None:
    """Refuse a folder with something of ours that a `kind` is not to replace, before the work and not after it.

    Raises
    ------
    ArtifactError
        It holds a compiled network, or something of another kind.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text()).get("kind")
    except (OSError, ValueError, AttributeError):
        return  # no manifest of ours: `replaced_folder` refuses what isn't empty
    if found != kind:
        what = f"a {found}" if found in (SERVER_KIT, PACKAGE) else "a compiled network"
        raise ArtifactError(f"{folder}: holds {what}, not a {kind}; name another folder")


def _read(path: Path, model: type[Part]) -> dict[str, Any]:
    data = read_file(path, MOST_MANIFEST_BYTES)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error}); {AGAIN}") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or found != FORMAT or isinstance(found, bool):
        raise ArtifactError(f"{path}: format {reprlib.repr(found)}, this thumbnet reads {FORMAT}; {AGAIN}")
    if model is Manifest and content.get("kind") in (SERVER_KIT, PACKAGE):
        raise ArtifactError(
            f"{path.parent}: holds a {content['kind']}, no network; name a folder of `thumbnet compile -o`"
        )
    try:
        model.model_validate(content)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_fault(error)}; {AGAIN}") from error
    return content


def first_fault(error: ValidationError) -> str:
    """Return the first thing that is wrong: where, what, and what stands there."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(reprlib.repr(step) if isinstance(step, str) and not step.isidentifier() else str(step)
                     for step in fault["loc"] if step != "[key]")  # fmt: skip
    what = fault["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    found = "" if fault["type"] in ("missing", "value_error") else f", not {reprlib.repr(fault['input'])}"
    return f"{where}: {what}{found}" if where else what + found
