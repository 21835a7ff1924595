"""Whatever ends in the middle of a search, nothing is lost but what was in flight, no record is wrong, nobody waits."""

import os
import signal
import sys
import time

import psutil
import pytest

from thumbnet.compile.tuning.stage_records import check_stage_records
from thumbnet.runtime_tests.run_folder import cache_folder

from ..processes import Programs, wait_for_end, wait_until
from ..runtime_tests.served.farm import THUMBNET, Farm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.emulated,
    pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc"),
]

LOCAL = ("--device", "qemu_mps2_an386")
#: Three programs of sixteen stages.
TRIALS = 48
#: A search may do nothing for so long: the longest a board that has begun a run is waited for.
IDLE_S = 320


class Search:
    """A running `thumbnet tune`, and its records."""

    def __init__(self, programs, folder, devices=LOCAL, trials=TRIALS):
        self.folder, self.said = folder, folder.with_suffix(".log")
        options = ("--space", "kernels", "--objective", "instructions", "--trials", trials, "-o", folder)
        with self.said.open("a") as log:
            command = [*THUMBNET, "tune", "mobilenet_v1_0.25_digits", *devices, *options]
            self.process = programs.start(command, stdout=log, stderr=log)

    def records(self):
        return check_stage_records(self.folder)[0] if (self.folder / "stages.jsonl").exists() else []

    def wait_for_records(self, count):
        wait_until(lambda: len(self.records()) >= count, self.process, IDLE_S)

    def wait_for_words(self, words, count=1):
        wait_until(lambda: self.said.read_text().count(words) >= count, self.process, IDLE_S)

    def end(self):
        assert wait_for_end(self.process, IDLE_S) == 0, self.said.read_text()
        return self.records()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What stages cost in a search that nothing happens to."""
    programs = Programs()
    try:
        records = Search(programs, tmp_path_factory.mktemp("undisturbed") / "db").end()
    finally:
        programs.end()
    return {record.key: record.samples for record in records}


def check_records(records, undisturbed):
    """Check that each stage is measured once and right, and costs what it does where nothing happens.

    Beside other stages it lies elsewhere: some instructions that make its addresses come and go.
    """
    assert all(record.right for record in records)
    costs = {record.key: record.samples for record in records}
    assert len(costs) == len(records)
    common = costs.keys() & undisturbed.keys()
    assert len(common) >= TRIALS // 3
    for key in common:
        assert costs[key] == pytest.approx(undisturbed[key], rel=1e-3, abs=10)


def test_a_tuner_that_is_killed_loses_what_is_in_flight_and_leaves_nothing(tmp_path, programs, undisturbed):
    search = Search(programs, tmp_path / "db")
    search.wait_for_records(16)
    wait_until(lambda: programs.alive("qemu-system-arm"), search.process)
    search.process.kill()
    search.process.wait()
    killed = time.monotonic()
    wait_until(lambda: not programs.alive(), psutil.Process())
    runs = cache_folder("runs")
    wait_until(lambda: not list(runs.glob(f"{search.process.pid}-*")), psutil.Process())
    print(f"nothing left after {time.monotonic() - killed:.1f} s")
    records, faults = check_stage_records(tmp_path / "db")
    assert len(records) >= 16
    assert [fault for fault in faults if not fault.cut_off] == []
    check_records(records, undisturbed)
    # The same command goes on from there.
    again = Search(programs, tmp_path / "db", trials=16).end()
    assert again[: len(records)] == records
    assert len(again) == len(records) + 16
    check_records(again, undisturbed)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_an_emulator_that_is_killed_or_hangs_costs_its_program_alone(tmp_path, programs, undisturbed, how):
    search = Search(programs, tmp_path / "db")
    search.wait_for_records(1)

    def strike():
        for process in programs.alive("/qemu-system-arm "):
            process.send_signal(how)
        return "qemu_mps2_an386: " in search.said.read_text()

    wait_until(strike, search.process, IDLE_S)  # between two programs nobody notices
    check_records(search.end(), undisturbed)
    assert "; the search goes on" in search.said.read_text()
    wait_until(lambda: not programs.alive(), psutil.Process())


def test_a_farm_outlives_its_tracker_and_its_servers(tmp_path, programs, undisturbed):
    """In the middle of a search the tracker is started anew, a server is killed, another hangs, and a third comes."""
    farm = Farm(programs)
    killed, hanging = (psutil.Process(farm.serve().pid) for _ in range(2))
    wait_until(lambda: farm.count() == 2, psutil.Process())
    devices = ("--tracker", farm.address, "--board", "mps2_an386")
    search = Search(programs, tmp_path / "db", devices, trials=6 * 16)
    search.wait_for_records(16)
    farm.end_tracker()
    farm.start_tracker()
    for count, (server, how) in enumerate(((killed, signal.SIGKILL), (hanging, signal.SIGSTOP)), 1):
        for process in (server, *server.children()):
            process.send_signal(how)
        search.wait_for_words("is gone or hangs", count)
    third = farm.serve()
    records = search.end()
    assert third.stdout.readline().startswith("qemu_mps2_an386: serving a client at 127.0.0.1")
    assert len(records) == 6 * 16
    check_records(records, undisturbed)
    assert {record.device.partition(" at ")[0] for record in records} == {"qemu_mps2_an386"}
    assert len({record.device for record in records}) >= 2
    for process in (hanging, *hanging.children()):
        process.kill()


def test_two_boards_of_a_farm_do_what_one_does_in_less_time(tmp_path, programs, undisturbed):
    """Where this computer has processors for both."""
    seconds = {}
    for count in (1, 2):
        farm = Farm(programs)
        servers = [farm.serve() for _ in range(count)]
        wait_until(lambda farm=farm, count=count: farm.count() == count, psutil.Process())
        devices = ("--tracker", farm.address, "--board", "mps2_an386")
        search = Search(programs, tmp_path / f"db{count}", devices, trials=6 * 16)
        search.wait_for_records(1)
        begun = time.monotonic()
        records = search.end()
        seconds[count] = time.monotonic() - begun
        check_records(records, undisturbed)
        assert len({record.device for record in records}) == count
        for server in servers:
            server.send_signal(signal.SIGINT)
            assert wait_for_end(server) == 128 + signal.SIGINT
        farm.end_tracker()
    load = os.getloadavg()[0]
    print(f"{seconds[1]:.1f} s with one board, {seconds[2]:.1f} s with two, load {load:.1f}", file=sys.stderr)
    if load > 1.5 * (os.cpu_count() or 1):
        pytest.skip("this computer is busy with other things: how long two boards take says nothing")
    assert seconds[2] < 0.8 * seconds[1]


@pytest.mark.parametrize(
    ("device", "objective", "says"),
    [
        (
            "qemu_mps2_an386",
            "seconds",
            "no seconds are measured on an emulated mps2_an386 (cortex-m4); take --objective",
        ),
        ("qemu_raspberry_pi_4", "seconds", "(cortex-a72); take --objective cycles or instructions"),
        ("qemu_raspberry_pi_2", "cycles", "no cycles are measured on an emulated raspberry_pi_2 (cortex-a7); take"),
    ],
)
def test_what_a_device_cant_measure_is_refused_before_anything_is_built(device, objective, says, refused, tmp_path):
    line = refused(
        "tune", "mobilenet_v1_0.25_digits", "--device", device, "--objective", objective, "-o", tmp_path / "db"
    )
    assert says in line and line.count(device) == 1
    assert not (tmp_path / "db").exists()
