import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from thumbnet.models.errors import ModelError
from thumbnet.tools import cli

from ..processes import communicate, processor_seconds, wait_until

COMMAND = (sys.executable, "-c", "from thumbnet.tools.cli import main; main()")


def _main(capsys, monkeypatch, *arguments):
    """Run the command line in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["thumbnet", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_help_is_quick_and_lists_every_command(programs):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = programs.run([*COMMAND, "--help"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, which a busy computer doesn't change.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_help_imports_nothing_heavy(programs):
    code = (
        "import sys; sys.argv = ['thumbnet', '--help']\n"
        "from thumbnet.tools.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'tvm', 'sklearn', 'h5py') if name in sys.modules])"
    )
    done = programs.run([sys.executable, "-c", code])
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_arguments_show_the_help(capsys, monkeypatch):
    code, out, _ = _main(capsys, monkeypatch)
    assert code == 0
    assert "Usage: thumbnet" in out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_and_json(capsys, monkeypatch, command):
    code, out, _ = _main(capsys, monkeypatch, command, "--help")
    assert code == 0
    assert "--json" in out


def test_models(capsys, monkeypatch, tmp_path):
    code, out, _ = _main(capsys, monkeypatch, "models", "--json", tmp_path / "models.json")
    assert code == 0
    assert "mobilenet_v1_0.25_128" in out
    assert "41.5" in out
    listed = {entry["name"]: entry for entry in json.loads((tmp_path / "models.json").read_text())}
    assert sum(entry["published_top1"] is not None for entry in listed.values()) == 38
    assert listed["mobilenet_v1_0.25_digits"]["bundled"]
    assert not listed["mobilenet_v2_1.0_224"]["bundled"]


def test_cost(capsys, monkeypatch, tmp_path):
    code, out, _ = _main(capsys, monkeypatch, "cost", "mobilenet_v1_1.0_224", "--json", tmp_path / "cost.json")
    assert code == 0
    assert "568,740,352" in out
    content = json.loads((tmp_path / "cost.json").read_text())
    assert content["macs"] == sum(layer["macs"] for layer in content["layers"]) == 568_740_352
    assert content["largest_activation"] == {"layer": "features.1.pointwise.0", "elements": 112 * 112 * 64}
    _main(capsys, monkeypatch, "cost", "mobilenet_v1_1.0_224", "--classes", "10", "--json", tmp_path / "ten.json")
    ten = json.loads((tmp_path / "ten.json").read_text())
    assert content["parameters"] - ten["parameters"] == 990 * 1025


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cost", "mobilenet_v1_0.25_12"), "resolution 12"),
        (("cost", "nothing"), "no model 'nothing'"),
        (("cost",), "Missing argument 'MODEL'"),
        (("cost", "vww_96", "--classes", "0"), "0 is not in the range"),
        (("cost", "vww_96", "--json", "/none/at/all.json"), "the folder /none/at does not exist"),
        (("nothing",), "No such command 'nothing'"),
        (("train", "mobilenet_v1_0.25_128", "-o", "x.pt"), "only networks for the digits"),
        (("train", "-o", "/none/at/all.pt"), "the folder /none/at does not exist"),
        (("train",), "Missing option"),
    ],
)
def test_bad_input_has_one_line_and_code_2(capsys, monkeypatch, arguments, says):
    code, out, err = _main(capsys, monkeypatch, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("thumbnet: error: ")
    assert err.count("\n") == 1
    assert says in err


def test_an_error_of_many_lines_becomes_one(capsys, monkeypatch):
    def fail(*_, **__):
        raise ModelError("first\nsecond")

    monkeypatch.setattr(cli.thumbnet, "main", fail)
    assert _main(capsys, monkeypatch) == (2, "", "thumbnet: error: first second\n")


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(cli.thumbnet, "main", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.fixture
def training(programs, tmp_path):
    """A training that would go on for hours, under way."""
    command = [*COMMAND, "train", "-o", tmp_path / "x.pt", "--epochs", "1000"]
    process = programs.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # Long enough to be training: imports take four seconds of the processor.
    wait_until(lambda: (processor_seconds(process) or 0) > 10, process)
    return process


def test_interrupt_leaves_with_130_and_one_line(training, tmp_path):
    training.send_signal(signal.SIGINT)
    _, err = communicate(training, work_s=60)
    assert training.returncode == 130
    assert err.strip().splitlines()[-1] == "thumbnet: stopped"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_ignores_interrupts_goes_on(programs, tmp_path):
    """As `nohup thumbnet ... &` in a script asks for: Ctrl-C is for others."""
    command = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, "train", "-o", tmp_path / "x.pt"]
    process = programs.start([*command, "--epochs", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: (processor_seconds(process) or 0) > 5, process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: (processor_seconds(process) or 0) > 7, process)
    assert process.poll() is None


def test_a_closed_pipe_ends_quietly(programs):
    read, write = os.pipe()
    os.close(read)
    try:
        done = programs.run([*COMMAND, "models"], stdout=write)
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1
