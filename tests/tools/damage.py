"""Damaged artifacts: seeded changes of manifests, golden vectors and networks' files, with the hashes made right."""

import hashlib
import json
import os
import shutil

import numpy as np

from thumbnet.compile.artifact import MANIFEST

DEEP = "deep"
VALUES = [
    *(None, True, False, 0, 1, -1, 3, 255, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.5, 1.5, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "int8", "float32", "c", "library", "a\0b", "a\nb", "\x1b[2J", "\ud800"),
    *("a" * 5000, "../../etc/passwd", "/etc/passwd", "host/../../x", ".", "..", "golden.npz", "\u00fc", "net.so", DEEP),
    *([], {}, [0], [1, 1, 1], [1] * 1000, [[]], {"a": 1}, [1 << 16] * 3, {"": None}, [None], ["a", "a"]),
]


def _places(content, path=()):
    """Every place in a tree of lists and dicts."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def damage_json(content, chance):
    """Change one to three places of a tree; return its text."""
    content = json.loads(json.dumps(content))
    for _ in range(chance.choice([1, 1, 2, 3])):
        # Places near the top as often as the many further down.
        places = sorted(_places(content), key=repr)
        depth = chance.choice(sorted({len(place) for place in places}))
        place = chance.choice([place for place in places if len(place) == depth])
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        match chance.randrange(4):
            case 0:
                del inner[place[-1]]
            case 1 if isinstance(inner, dict):
                inner[chance.choice(["", "../x", "a\0", "x" * 300, "host/", "net.c/x"])] = inner.pop(place[-1])
            case 2 if isinstance(inner[place[-1]], int | float):
                inner[place[-1]] = inner[place[-1]] * chance.choice([-1, 2, 1000]) + chance.choice([-1, 0, 1])
            case _:
                inner[place[-1]] = chance.choice(VALUES)
    return json.dumps(content).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000)


def damage_bytes(data, chance):
    """Change, delete or repeat bytes anywhere; or keep none, or a part."""
    content = bytearray(data)
    if chance.random() < 0.2:
        return bytes(content[: chance.choice([0, 1, 10, len(content) // 2, len(content) - 1])])
    for _ in range(chance.choice([1, 3, 30])):
        at = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randrange(1, 50)]
            case _:
                content[at:at] = content[at : at + chance.randrange(1, 50)]
    return bytes(content)


def damage_arrays(path, chance):
    """Change the arrays of an .npz: what they hold, their shapes, dtypes and names; the JSON in it like a manifest."""
    with np.load(path) as file:
        arrays = dict(file)
    name = chance.choice(sorted(arrays))
    if "description" in arrays and chance.random() < 0.6:
        name = "description"
    array = arrays.pop(name)
    match chance.randrange(8):
        case _ if name == "description":
            text = damage_json(json.loads(array.tobytes()), chance)
            arrays[name] = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
        case 0:
            pass
        case 1:
            arrays[name] = array.astype(chance.choice([np.float64, np.uint8, np.int64, np.bool_, "U3", "M8[s]"]))
        case 2:
            arrays[name] = array[:0] if array.ndim else array
        case 3:
            arrays[name] = array[..., None]
        case 4:
            arrays[name] = array.reshape(-1)
        case 5:
            arrays[name + "x"] = array
        case 6:
            arrays[name] = np.array([array, None], dtype=object)
        case _:
            arrays[name] = np.full_like(array, chance.choice([-128, 127, 0, 1]))
    np.savez_compressed(path, **arrays)


def damage_entry(folder, name, chance):
    """Put something else in a file's place: a link, a FIFO, a folder, a file that seems to be without end, nothing."""
    path = folder / name
    path.unlink()
    match chance.randrange(5):
        case 0:
            path.symlink_to(chance.choice(["/dev/zero", "/etc/hostname", "/none", name.rpartition("/")[2]]))
        case 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            with path.open("wb") as file:
                file.truncate(1 << 42)
        case _:
            pass


def damage(whole, folder, chance):
    """Make a damaged copy of an artifact; return what was done."""
    shutil.copytree(whole, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    arrays = [name for name in ("golden.npz", "host/reference.npz") if name in manifest["files"]]
    kind = chance.choice(["json"] * 4 + ["manifest bytes", "entry"] + (["arrays"] * 3 + ["bytes"] if arrays else []))
    if kind == "json":
        (folder / MANIFEST).write_bytes(damage_json(manifest, chance).encode(errors="surrogatepass"))
    elif kind == "manifest bytes":
        (folder / MANIFEST).write_bytes(damage_bytes((folder / MANIFEST).read_bytes(), chance))
    elif kind == "entry":
        damage_entry(folder, chance.choice([*manifest["files"], MANIFEST]), chance)
    else:
        name = chance.choice(arrays)
        if kind == "arrays":
            damage_arrays(folder / name, chance)
        else:
            (folder / name).write_bytes(damage_bytes((folder / name).read_bytes(), chance))
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(manifest))
    return kind
