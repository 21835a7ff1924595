"""What a network may be called in C."""

import subprocess

import pytest

from thumbnet.compile.errors import CompileError
from thumbnet.compile.request import CompileOptions, check_options
from thumbnet.compile.symbol_prefix import LONGEST, check_symbol_prefix
from thumbnet.targets.registry import get_board

from .c_harness import STRICT, emit
from .networks import one_of_each_kind

REFUSED = {
    "": "no C identifier",
    "Net": "no C identifier",
    "my-net": "no C identifier",
    "9net": "no C identifier",
    "_net": "no C identifier",
    "nét": "no C identifier",
    "net\n": "no C identifier",
    "../net": "no C identifier",
    "n" * (LONGEST + 1): "129 characters",
    "int": "keyword",
    "class": "keyword",
    "linux": "keyword",
    "string": "string.h",
    "stdint": "stdint.h",
    "test": "target of every CMake project",
    "thumbnet_dsp": "kernels' own",
    "tn_net": "kernels' own",
}


@pytest.mark.parametrize("prefix", REFUSED)
def test_what_no_network_may_be_called(prefix):
    with pytest.raises(CompileError, match="--name") as caught:
        check_symbol_prefix(prefix)
    assert REFUSED[prefix] in str(caught.value)
    suggested = str(caught.value).rpartition("such as ")[2]
    check_symbol_prefix(suggested)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("board", ["mps2_an386", "raspberry_pi_4", "host"])
def test_every_board_checks_the_name(board):
    with pytest.raises(CompileError, match="keyword"):
        check_options(CompileOptions(name="while"), get_board(board))


@pytest.mark.needs_tools("gcc")
@pytest.mark.parametrize("name", ["model", "arena", "net_input", "main", "a", "n" * LONGEST])
def test_any_other_name_compiles(name, tmp_path):
    check_symbol_prefix(name)
    emit(one_of_each_kind(), tmp_path, name)
    for source in tmp_path.glob("*.c"):
        command = ["gcc", *STRICT, "-c", source, "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
