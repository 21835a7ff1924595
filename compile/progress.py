"""How what takes long says what it is doing, to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

#: Told before each step what is done next, a few words such as "planning the layers".
Progress: TypeAlias = Callable[[str], None]


def say_nothing(_: str) -> None:
    """Show no progress."""
