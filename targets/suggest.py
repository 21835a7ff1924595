"""The nearest of known names."""

from __future__ import annotations

import difflib


def suggest(name: str, known: list[str]) -> str:
    """Return ``", did you mean X?"`` for the nearest of the known names, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""
