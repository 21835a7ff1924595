"""The C of one tiny layer of each kind, as a person reads it: a change of it is to be seen in a diff.

``pytest --update-golden`` writes the files anew.
"""

import re
from pathlib import Path

import pytest

from ..c_harness import emit
from ..networks import one_layer_network
from .test_emit_c import EACH_KIND

GOLDEN = Path(__file__).parent / "golden_c"
#: The files that differ from layer to layer.
FILES = ("net.c", "net_layers.c", "net_weights.c")


@pytest.mark.parametrize("kind", EACH_KIND)
def test_golden(kind, tmp_path, update_golden):
    emit(one_layer_network(EACH_KIND[kind]()), tmp_path)
    text = "\n".join(f"// {name}\n{(tmp_path / name).read_text()}" for name in FILES)
    assert not re.search(r"\b(cse_v|v_)\d*\b", text), "loops and temporary values have names"
    path = GOLDEN / f"test_golden[{kind}].c.txt"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.is_file(), f"{path} is missing: pytest --update-golden writes it"
    assert text == path.read_text(), "the C has changed: if that is meant, pytest --update-golden and read the diff"


def test_golden_files_belong_to_tests():
    names = {path.name.removeprefix("test_golden[").removesuffix("].c.txt") for path in GOLDEN.iterdir()}
    assert names == set(EACH_KIND)
