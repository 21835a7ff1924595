"""What a person may call a network in C: the prefix of all its symbols and macros, and the stem of its files."""

from __future__ import annotations

import re

from thumbnet.compile.errors import CompileError

LONGEST = 128
_FORM = re.compile(r"[a-z][a-z0-9_]*")
#: Of C11 and C++20, as far as they are in lower case; also what preprocessors and compilers define themselves.
_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class co_await
    co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int linux long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires restrict return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof union unix unsigned using virtual void volatile wchar_t
    while xor xor_eq
    """.split()
)
#: A file of the network beside the sources would be taken for these.
_SYSTEM_HEADERS = frozenset(
    """
    alloca arm_acle arm_mve arm_neon assert complex ctype endian errno fcntl fenv float getopt inttypes iso646 limits
    locale malloc math memory poll pthread sched setjmp signal stdalign stdarg stdatomic stdbool stdbit stdckdint stddef
    stdint stdio stdlib stdnoreturn string strings tgmath threads time uchar unistd wchar wctype
    """.split()
)
#: Of every CMake project.
_BUILD_TARGETS = frozenset("all clean depend edit_cache help install package rebuild_cache test".split())
#: Of the kernels: their files, functions and macros.
_OURS = ("thumbnet", "tn_")


def identifier(name: str) -> str:
    """Return a layer's name as a C identifier: ``features.3.conv.0.0`` is ``features_3_conv_0_0``."""
    return re.sub(r"[^0-9A-Za-z]", "_", name)


def c_name(name: str) -> str:
    """Return a network's name as a C identifier: ``mobilenet_v1_0.25_128`` is ``mobilenet_v1_0_25_128``."""
    return re.sub(r"^(?=\d)", "_", identifier(name)).lower()


def check_symbol_prefix(prefix: str) -> None:
    """Check that a network may have this name in C and C++, beside the C library's headers and the kernels'.

    Raises
    ------
    CompileError
        It may not; the message says why.
    """
    why = None
    if not _FORM.fullmatch(prefix):
        why = "is no C identifier of a lower-case letter, and then such letters, digits and underscores"
    elif len(prefix) > LONGEST:
        why = f"has {len(prefix)} characters, {LONGEST} at most are taken"
    elif prefix in _KEYWORDS:
        why = "is a keyword of C or C++"
    elif prefix in _SYSTEM_HEADERS:
        why = f"would make a {prefix}.h, which the C library has too"
    elif prefix in _BUILD_TARGETS:
        why = "is a target of every CMake project"
    elif prefix.startswith(_OURS):
        why = f"begins like the kernels' own names ({' or '.join(_OURS)})"
    if why is not None:
        shown = prefix if len(prefix) <= LONGEST else f"{prefix[:LONGEST]}..."
        raise CompileError(f"--name {shown!r}: {why}; take another, such as {_suggest(prefix)}")


def _suggest(prefix: str) -> str:
    """Return a name like the one that was refused."""
    stem = re.sub(r"[^a-z0-9]+", "_", prefix.lower()).strip("_")[:32]
    stem = re.sub(r"^(?:thumbnet|tn)_*", "", stem)
    return f"{stem}_net" if re.match(r"[a-z]", stem) else f"net_{stem}".rstrip("_")
