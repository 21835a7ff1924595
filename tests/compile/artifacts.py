"""Small artifacts on disk: all that a manifest needs, and files as short as can be."""

import json

import numpy as np

from thumbnet.compile.artifact import MANIFEST, write_manifest

SHAPE, CLASSES = (2, 2, 1), 3


def manifest(**changes):
    """The manifest of `write_artifact`, without what `write_manifest` adds."""
    entry = {
        "name": "net",
        "model": "net",
        "board": "mps2_an386",
        "core": "cortex-m4",
        "kind": "c",
        "dtype": "int8",
        "input": {"shape": list(SHAPE), "dtype": "int8", "scale": 0.5, "zero_point": 0},
        "output": {"shape": [CLASSES], "dtype": "int8", "scale": 0.5, "zero_point": 0},
        "golden": {"file": "golden.npz"},
        "layers": [{"name": "classes", "shape": [1, 1, CLASSES]}],
    }
    return {**entry, **changes}


def write_artifact(folder, **changes):
    """Write an artifact of C sources."""
    (folder / "host").mkdir(parents=True)
    (folder / "net.c").write_text("int x;\n")
    (folder / "net.h").write_text("extern int x;\n")
    (folder / "host" / "reference.npz").write_bytes(b"1234")
    np.savez(folder / "golden.npz", inputs=np.zeros((1, *SHAPE), np.int8), outputs=np.ones((1, CLASSES), np.int8))
    write_manifest(folder, manifest(**changes))
    return folder


def rewrite(folder, **changes):
    """Change keys of a manifest as it is on disk."""
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, **changes}))
