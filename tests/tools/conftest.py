import sys

import pytest

from thumbnet.tools import cli

from ..processes import PROGRESS


@pytest.fixture
def thumbnet(capfd, monkeypatch):
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["thumbnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return run


@pytest.fixture
def refused(thumbnet):
    """Run a command that must fail on bad input: exit code 2, one line, no traceback. Returns the line."""

    def run(*arguments):
        code, _, err = thumbnet(*arguments)
        lines = [line for line in err.splitlines() if line.strip() and not PROGRESS.fullmatch(line)]
        assert code == 2, err
        assert len(lines) == 1, err
        assert lines[0].startswith("thumbnet: error: ")
        return lines[0]

    return run
