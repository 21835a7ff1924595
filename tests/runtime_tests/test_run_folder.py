"""The folder of temporary files of a run, with other runs beside it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ..processes import wait_until

PROGRAM = "from thumbnet.runtime_tests.run_folder import run_folder; print(run_folder(), flush=True); input()"


@pytest.fixture
def start(tmp_path):
    started = []

    def start():
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def folders(tmp_path):
    return sorted(str(folder) for folder in (tmp_path / "thumbnet" / "runs").iterdir())


def test_only_what_nobody_uses_is_removed(start, tmp_path):
    abandoned = tmp_path / "thumbnet" / "runs" / "1-left-by-a-power-cut"
    (abandoned / "folder").mkdir(parents=True)
    first, second = start(), start()
    used = [process.stdout.readline().strip() for process in (first, second)]
    (Path(used[0]) / "file").write_text("kept")
    assert folders(tmp_path) == sorted(used)
    second.communicate("\n")
    first.communicate("\n")
    assert first.returncode == second.returncode == 0 and folders(tmp_path) == []


def test_a_killed_process_leaves_nothing(start, tmp_path):
    first, second = start(), start()
    used = [process.stdout.readline().strip() for process in (first, second)]
    (Path(used[1]) / "folder").mkdir()
    (Path(used[1]) / "folder" / "file").write_text("temporary")
    second.kill()
    wait_until(lambda: folders(tmp_path) == [used[0]], psutil.Process())


def test_runs_that_begin_and_end_at_once_do_not_disturb_each_other(start, tmp_path):
    for _ in range(3):
        processes = [start() for _ in range(6)]
        processes[0].kill()
        for process in processes[1:]:
            process.communicate("\n")
            assert process.returncode == 0
    last = start().stdout.readline().strip()
    wait_until(lambda: folders(tmp_path) == [last], psutil.Process())
