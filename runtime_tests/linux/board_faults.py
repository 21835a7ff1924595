"""What a board's processor and loader refuse, in words for the person: what is there, what is needed, the way out."""

from __future__ import annotations

import re

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.targets.board import DOT_PRODUCT_CORES
from thumbnet.targets.device import Device

#: Of AT_HWCAP on AArch64 (Linux, arch/arm64/include/uapi/asm/hwcap.h): the processor has dot product instructions.
_DOT_PRODUCT = 1 << 20

#: The loader's words (glibc), and what they mean. Each file is named without the folder it was uploaded to.
_LOADER = (
    (
        re.compile(r"version `(GLIBC|GLIBCXX|CXXABI)_([\d.]+)' not found \(required by (?:\S*/)?([^/)]+)\)"),
        "{2} needs {0} {1}, the device's is older (`ldd --version` there says which it has); update its system",
    ),
    (
        re.compile(r"(?:\S*/)?(\S+\.so\S*): (?:wrong ELF class|invalid ELF header|cannot open shared object file)"),
        "{0} is missing on the device, or is no library for its processor; check its board in devices.toml, and copy"
        " the whole server kit again where it runs one",
    ),
)
_NAMES = {"GLIBC": "glibc", "GLIBCXX": "the libstdc++ of GLIBCXX", "CXXABI": "the libstdc++ of CXXABI"}


def needs_dot_product(artifact: Artifact) -> bool:
    """Tell whether a library may use instructions that a Cortex-A53 or A72 lacks."""
    return artifact.manifest["core"] in DOT_PRODUCT_CORES


def check_processor(artifact: Artifact, device: Device, hwcap: int) -> None:
    """Refuse a library whose instructions a device's processor hasn't: it would end the server.

    Parameters
    ----------
    artifact : Artifact
        The library.
    device : Device
        Where it is to run.
    hwcap : int
        What the device's kernel says of its processor, AT_HWCAP.

    Raises
    ------
    SessionError
        The processor lacks the dot product, and the library needs it.
    """
    if needs_dot_product(artifact) and not hwcap & _DOT_PRODUCT:
        board, core = artifact.manifest["board"], artifact.manifest["core"]
        raise SessionError(
            f"{artifact.folder}: compiled for {board} ({core}), the processor of {device.name} has no dot product"
            f" instructions and so is no {core}; name its real board in devices.toml, and compile for that"
        )


def explain_loader(words: str) -> str | None:
    """Return what a loader's refusal means, in one line; None for other words."""
    for pattern, meaning in _LOADER:
        if found := pattern.search(words):
            return meaning.format(*(_NAMES.get(group, group) for group in found.groups()))
    return None
