"""Loads mutated copies of a weights file in a process of limited memory, and prints what came of it as JSON.

Run as a script with a weights file, the network's name and the number of copies.
"""

import collections
import io
import json
import resource
import sys
import tempfile
import traceback
import zipfile
from pathlib import Path

import numpy as np

from thumbnet.models.errors import ModelError
from thumbnet.models.weights import load_model

#: Address space above what the interpreter has after loading the file as it is.
SPARE_BYTES = 1 << 30
#: Of the processor, for all copies together, a copy: a hang ends the process, and the test fails.
SECONDS = 20
#: The members of an archive that are more than numbers: PyTorch's, and Keras' two.
STRUCTURES = ("data.pkl", "config.json", ".h5")
#: Numbers that are the first ones wrong, as the four bytes of a field.
EXTREMES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 10**5, 0x10000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(content, random):
    """Return a changed copy of some bytes: bits, a cut, a splice or a field."""
    changed = bytearray(content)
    size = len(changed)
    # The structure of these files is at their ends, and elsewhere between weights.
    places = (random.integers(size), random.integers(min(size, 6000)), size - 1 - random.integers(min(size, 30000)))
    kind = random.integers(4)
    if kind == 0:
        for _ in range(random.integers(1, 30)):
            changed[random.choice([random.integers(size), places[1], places[2]])] ^= 1 << random.integers(8)
    elif kind == 1:
        del changed[random.choice(places) :]
    elif kind == 2:
        start, length, source = random.choice(places), random.integers(1, 2000), random.integers(size)
        changed[start : start + random.choice([0, length])] = content[source : source + length]
    else:
        for _ in range(random.integers(1, 4)):
            place = int(random.choice(places)) & ~3
            changed[place : place + 4] = int(random.choice(EXTREMES)).to_bytes(4, "little")
    return bytes(changed)


def mutate_member(content, random):
    """Return an archive whose description or structure is changed, under a right checksum."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as changed:
        for member in archive.namelist():
            data = archive.read(member)
            changed.writestr(member, mutate(data, random) if member.endswith(STRUCTURES) else data)
    return out.getvalue()


def main(file, name, copies):
    """Load the copies and print the number of each outcome, the tracebacks and the growth of memory."""
    whole = Path(file).read_bytes()
    load_model(name, Path(file))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (60 + SECONDS * copies,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, wrong = collections.Counter(), []
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated"
        for copy in range(copies):
            inside = whole.startswith(b"PK") and copy % 2
            path.write_bytes(mutate_member(whole, random) if inside else mutate(whole, random))
            try:
                load_model(name, path)
                outcomes["loaded"] += 1
            except ModelError as error:
                outcomes[type(error).__name__] += 1
                if "\n" in str(error) or len(str(error)) > 1000:
                    wrong.append(f"copy {copy}: {str(error)[:2000]!r}")
            except BaseException:
                wrong.append(f"copy {copy}: {traceback.format_exc()}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"outcomes": outcomes, "wrong": wrong, "grown_bytes": grown, "file_bytes": len(whole)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
