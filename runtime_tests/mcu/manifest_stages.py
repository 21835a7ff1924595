"""What a manifest says of a network's stages on a microcontroller: their layouts, and their names in messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout, read_layout
from thumbnet.runtime_tests.errors import ArenaOverrunError
from thumbnet.targets.device import Device


def layout_of(layer: Mapping[str, Any]) -> Layout:
    """Return how a layer's output lies in the arena; rows, pixels, channels where the manifest doesn't say."""
    if "layout" not in layer:
        shape = (*(1,) * (3 - len(layer["shape"])), *layer["shape"])
        return replace(nhwc_layout(shape), size=math.prod(shape))
    return read_layout(layer["layout"])


def explain_overrun(error: ArenaOverrunError, device: Device, artifact: Artifact) -> ArenaOverrunError:
    """Return the error in words of the network's: which arena, which stage."""
    manifest, side = artifact.manifest, "behind the end" if error.behind else "before the start"
    seen = "the whole inference"
    if error.stage is not None and error.stage < len(manifest["layers"]):
        seen = f"stage {manifest['layers'][error.stage]['name']}"
    return ArenaOverrunError(
        f"{device.name}: {artifact.name} wrote up to {error.reach_bytes} bytes {side} of its arena of "
        f"{manifest['arena_bytes']} bytes, seen after {seen}; its generated code is wrong",
        behind=error.behind,
        reach_bytes=error.reach_bytes,
        stage=error.stage,
    )
