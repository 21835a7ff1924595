"""Addresses of the form HOST:PORT."""

from __future__ import annotations

import ipaddress
import re

#: What DNS knows of names: letters, digits and hyphens between dots. Underscores are no more than usual.
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)


def is_host_port(text: str) -> bool:
    """Whether a text is HOST:PORT: a name or a number, and a port of TCP."""
    host, _, port = text.rpartition(":")
    return _is_host(host) and re.fullmatch("[0-9]{1,5}", port) is not None and 0 < int(port) < 65536


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        try:
            labels = host.encode("idna").decode().removesuffix(".").split(".")
        except UnicodeError:  # a label that is empty or too long, or has what no name can have
            return False
        return all(_HOST_LABEL.fullmatch(label) for label in labels)
    return True
