"""What shows a device that `thumbnet serve` put on a tracker that its client is its owner.

A tracker hands what a server wants to be shown to whoever asks. So these servers want more: a code that only who has a
secret can make of it. The secret is a file in the user's cache folder, which nobody else may enter, and which never
leaves the computer by itself; who has devices on several computers copies it. A code is good for one connection to one
address.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile

from thumbnet.compile.errors import explain_os_error
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.run_folder import cache_folder

FILE = "farm.key"
#: How the random part of a match key begins where the server is one of ours.
_MARK = "thumbnet."


def new_match_key(key: str) -> str:
    """Return what a server of ours tells the tracker that a client has to show, for one connection."""
    return f"{key}:{_MARK}{secrets.token_hex(16)}"  # the tracker expects one colon before the random part


def is_served(match_key: str) -> bool:
    """Tell whether a server is one of `thumbnet serve`, by what a tracker says of it."""
    return match_key.rpartition(":")[2].startswith(_MARK)


def shown_key(match_key: str, host: str, port: int) -> str:
    """Return what a client really shows: of servers that aren't ours what the tracker says.

    Parameters
    ----------
    match_key : str
        What the tracker says.
    host, port : str, int
        Where the server listens, as the tracker has it: nobody elsewhere can pass the code on.

    Raises
    ------
    SessionError
        The file of the secret can't be used.
    """
    if not is_served(match_key):
        return match_key
    code = hmac.new(_secret(), f"{match_key} {host} {port}".encode(), hashlib.sha256)
    return f"{match_key}.{code.hexdigest()}"


def _secret() -> bytes:
    """Return this user's secret; it is made the first time."""
    folder = cache_folder()
    path = folder / FILE
    try:
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=folder) as aside:  # nobody else may read it
                aside.write(secrets.token_hex(32).encode())
                aside.flush()
                with contextlib.suppress(FileExistsError):  # another run was first
                    os.link(aside.name, path)
        content = path.read_bytes().strip()
    except OSError as error:
        raise SessionError(explain_os_error(error, path)) from error
    if len(content) < 32:
        raise SessionError(f"{path}: has {len(content)} bytes, a key has 64; delete it on all computers of the farm")
    return content
