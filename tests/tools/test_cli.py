import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from thumbnet.compile.replaced_folder import replaced_folder
from thumbnet.models.errors import ModelError
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.tools import cli

from ..processes import PROGRESS, communicate, processor_seconds, signals_by_default, wait_until

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


#: What serves until it is ended has no result. A command alone, or a group with each of its own.
_RECORDS = tuple(("records", name) for name in ("list", "merge", "filter", "check"))
_ALONE = tuple((name,) for name in cli.COMMANDS if name not in {"records", "serve"})


@pytest.mark.parametrize("command", [*_ALONE, *_RECORDS], ids=" ".join)
def test_every_command_has_help_and_json(capsys, monkeypatch, command):
    code, out, _ = _main(capsys, monkeypatch, *command, "--help")
    assert code == 0
    assert "--json" in out


def test_models(capsys, monkeypatch, tmp_path):
    code, out, _ = _main(capsys, monkeypatch, "models", "--json", tmp_path / "models.json")
    assert code == 0
    assert "mobilenet_v1_0.25_128" in out
    assert "41.5" in out
    listed = {entry["name"]: entry for entry in json.loads((tmp_path / "models.json").read_text())}
    assert sum(entry["published_top1"] is not None for entry in listed.values()) == 39
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


COMPILE = (
    "compile",
    "mobilenet_v1_0.25_digits",
    "--calibration",
    BUNDLED_FOLDER / "calibration",
    "--board",
    "mps2_an386",
)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*COMPILE, "-o", "."), "is the folder you are in"),
        ((*COMPILE, "-o", "/proc"), "is where a file system is mounted"),
        ((*COMPILE, "-o", "x" * 300), "File name too long; choose a shorter name"),
        ((*COMPILE, "-o", "file/x"), "a file is where a folder belongs"),
        ((*COMPILE, "-o", "/proc/1/x"), "No such file or directory"),
        (("demo", "-o", "file/x"), "a file is where a folder belongs"),
        (("bench", "-o", "file/x"), "a file is where a folder belongs"),
        (("train", "-o", "file/x"), "the folder file does not exist"),
        (("models", "--json", "x" * 300), "File name too long; choose a shorter name"),
        (("models", "--json", "file/x"), "the folder file does not exist"),
        (("devices", "--devices", "/dev/zero"), "no regular file"),
        (("test", "file", "--device", "local", "--images", BUNDLED_IMAGES), "'file' is a file"),
        (("profile", "x" * 300, "--device", "local"), "no manifest.json there"),
        (("test", "a\udcff", "--device", "local", "--images", BUNDLED_IMAGES), r"a\udcff: no manifest.json there"),
    ],
)
def test_a_place_that_can_not_be_is_one_line(capfd, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    code, _, err = _main(capfd, monkeypatch, *arguments)
    lines = [line for line in err.splitlines() if line.strip()]
    assert (code, len(lines)) == (2, 1), err
    assert lines[0].startswith("thumbnet: error: ") and says in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_an_error_of_many_lines_becomes_one(capsys, monkeypatch):
    def fail(*_, **__):
        raise ModelError("first\nsecond")

    monkeypatch.setattr(cli.thumbnet, "main", fail)
    assert _main(capsys, monkeypatch) == (2, "", "thumbnet: error: first second\n")


def _command(monkeypatch, run):
    """Put a command `raise` into the table, which calls `run`."""
    command = click.command("raise")(run)
    monkeypatch.setattr(cli.CommandTable, "get_command", lambda self, ctx, name: command)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero (not foreseen by thumbnet"),
        (KeyError("x"), "KeyError: 'x' (not foreseen"),
        (EOFError(), "a file ends too early"),
        (RecursionError("maximum"), "RecursionError: maximum"),
        (MemoryError(), "out of memory; close other programs"),
        (UnicodeError("label empty or too long"), "UnicodeError: label empty"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y: Read-only file system; name a place"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied; name another place"),
        (ValueError("a\nb\x1b[2J\0\ud800" + "c" * 100_000), r"ValueError: a b\x1b[2J\x00\ud800ccc"),
    ],
)
def test_whatever_is_raised_is_one_line_and_code_2(capsys, monkeypatch, error, says):
    def run():
        raise error

    _command(monkeypatch, run)
    code, out, err = _main(capsys, monkeypatch, "raise")
    assert (code, out) == (2, "")
    assert err.startswith("thumbnet: error: ") and err.count("\n") == 1 and len(err) < 2500
    assert says in err
    assert all(char.isprintable() for char in err[:-1])


@pytest.mark.parametrize("way", ["option", "environment"])
def test_debug_prints_where_it_was_raised(capsys, monkeypatch, way):
    def run():
        raise ZeroDivisionError

    _command(monkeypatch, run)
    if way == "environment":
        monkeypatch.setenv("THUMBNET_DEBUG", "1")
    code, _, err = _main(capsys, monkeypatch, *(["--debug"] if way == "option" else []), "raise")
    assert code == 2
    assert err.startswith("Traceback") and "in run" in err
    assert err.splitlines()[-1].startswith("thumbnet: error: ZeroDivisionError")


def test_a_full_disk_behind_standard_output_is_one_line(programs):
    with Path("/dev/full").open("wb") as full:
        done = programs.run([*COMMAND, "models"], stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("thumbnet: error: No space left") and done.stderr.count("\n") == 1


def _start_compile(programs, folder, until="host/*", **options):
    """Start a compilation and wait until it has written a file of that name."""
    process = programs.start(
        [*COMMAND, *COMPILE, "-o", folder / "new" / "artifact"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # PyTorch keeps a folder of its own for good where this says.
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")},
        **options,
    )
    while not list(folder.glob(f"new/.*/new/artifact/{until}")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("until", ["host/*", "*_weights.c"])
def test_a_signal_ends_a_compilation_and_leaves_nothing(programs, workplace, number, until):
    process = _start_compile(programs, workplace, until)
    process.send_signal(number)
    if number != signal.SIGINT:
        process.send_signal(number)  # that it cleans up is not to be stopped
    _, err = communicate(process)
    assert process.returncode == 128 + number
    assert err.strip().splitlines()[-1] == "thumbnet: stopped"
    assert list(workplace.glob("new/*")) == list(workplace.glob("tmp/*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_comes_out_of_a_library_as_an_error_of_its_own_is_still_one(capsys, monkeypatch, number):
    """TVM makes a RuntimeError of whatever interrupts a function that it calls."""

    def run():
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except BaseException as error:
            raise RuntimeError("15") from error

    _command(monkeypatch, run)
    with signals_by_default():
        before = signal.getsignal(number)
        assert _main(capsys, monkeypatch, "raise") == (128 + number, "", "thumbnet: stopped\n")
        assert signal.getsignal(number) == before


def test_a_killed_compilation_leaves_nothing_for_the_next_run(programs, workplace):
    process = _start_compile(programs, workplace)
    process.kill()
    communicate(process)
    assert list(workplace.glob("tmp/*")) == []
    [left] = workplace.glob("new/*")
    assert left.name.startswith(".thumbnet-")
    with replaced_folder(workplace / "new" / "artifact"):
        assert not left.exists()


def test_who_ignores_the_signals_goes_on(programs, workplace):
    """As `nohup` does."""
    process = _start_compile(programs, workplace, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    _, err = communicate(process)
    assert process.returncode == 0
    assert all(PROGRESS.fullmatch(line) for line in err.splitlines()), err
    assert (workplace / "new" / "artifact" / "manifest.json").is_file()


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
