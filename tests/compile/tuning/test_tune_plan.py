"""The loop over devices: fast ones get more, failing ones are left out, and what was measured is right."""

import contextlib
import math
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future

import pytest

from thumbnet.compile.errors import TuningError
from thumbnet.compile.tuning import tune_plan as module
from thumbnet.compile.tuning.stage_key import describe_stage
from thumbnet.compile.tuning.tune_plan import tune_plan

from ..plan.test_stage_graph import small_mobilenet
from .searches import BlindModel, Device, make_search, true_cost, untuned_plan

#: How long a device of tests takes for its stages, where time is simulated.
LATENCY_S = 1.0
#: What doesn't happen within so many seconds is taken never to happen: a test that passes waits for none of it.
GIVEN_UP_S = 120


@pytest.fixture(scope="module")
def network():
    return small_mobilenet()


@pytest.fixture(autouse=True)
def short_rests(monkeypatch):
    monkeypatch.setattr(module, "REST_S", 0.001)


def tune(network, devices, *, trials=10_000, batch=4, measured=None, model=None, **options):
    search = make_search(network, measured=measured, model=model)
    untuned = untuned_plan(network)
    return tune_plan(search, untuned, devices, trials=trials, batch=batch, **options)


def check_costs(tuned):
    for plan, costs in ((tuned.untuned, tuned.untuned_costs), (tuned.best, tuned.best_costs)):
        assert costs == tuple(true_cost(stage) for stage in plan.stages)


def test_ends_when_the_best_plan_is_proven(network):
    tuned = tune(network, [Device()])
    check_costs(tuned)
    assert tuned.end == "proven"
    assert sum(tuned.best_costs) <= sum(tuned.untuned_costs)
    last = tuned.history[-1]
    assert last.best == last.bound == pytest.approx(sum(tuned.best_costs))
    assert [entry.trials for entry in tuned.history] == sorted({entry.trials for entry in tuned.history})


def test_many_devices_find_the_same(network):
    alone, together = tune(network, [Device()]), tune(network, [Device(str(i)) for i in range(7)])
    assert together.end == "proven"
    assert sum(together.best_costs) == pytest.approx(sum(alone.best_costs), rel=0.005)


def test_trials_are_a_limit(network):
    tuned = tune(network, [Device(), Device()], trials=13)
    assert tuned.end == "trials"
    assert tuned.history[-1].trials == 13
    check_costs(tuned)


def test_time_is_a_limit(network):
    tuned = tune(network, [Device(answer=lambda stages: time.sleep(0.05))], time_limit_s=0.3)
    assert tuned.end == "time"
    check_costs(tuned)


def test_devices_that_fail_now_and_then_lose_nothing(network):
    rng, lock = random.Random(3), threading.Lock()

    def fail_sometimes(stages):
        with lock:
            failing = rng.random() < 0.1
        if failing:
            raise OSError("unplugged")

    failures = []
    tuned = tune(
        network,
        [Device(str(i), fail_sometimes) for i in range(8)],
        on_failure=lambda name, error: failures.append((name, str(error))),
    )
    assert failures
    assert tuned.end == "proven"
    check_costs(tuned)


def test_a_device_that_always_fails_is_left_out(network):
    def fail(stages):
        raise OSError("unplugged")

    bad, good = Device("bad", fail), Device("good", lambda stages: time.sleep(0.002))
    started = time.monotonic()
    tuned = tune(network, [bad, good], batch=1)
    took = time.monotonic() - started
    assert tuned.end == "proven"
    assert good.calls > 15
    assert module.REST_S * (2 ** (bad.calls - 1) - 1) <= took, "rests are twice as long each time"
    check_costs(tuned)


def test_a_device_that_comes_back_is_used_again(network):
    def fail_at_first(stages):
        if device.calls < 6:
            raise OSError("boots")

    device = Device("boots", fail_at_first)
    tuned = tune(network, [Device("good", lambda stages: time.sleep(0.005)), device], batch=1)
    assert device.calls > 10
    check_costs(tuned)


def test_a_rest_does_not_wait_for_what_others_do(network):
    """A device that failed is at work again while another is still at its first stages."""
    back_at_work, seen = threading.Event(), []

    def fail_once(stages):
        if device.calls == 1:
            raise OSError("unplugged")
        if device.calls > 10:
            back_at_work.set()

    device = Device("good", fail_once)
    slow = Device("slow", lambda stages: seen.append(back_at_work.wait(GIVEN_UP_S)))
    tuned = tune(network, [device, slow], batch=1)
    assert all(seen)
    check_costs(tuned)


@pytest.mark.parametrize("count", [1, 3])
def test_a_stage_that_devices_fail_of_is_given_up_and_no_other(network, count):
    """One device that works has to find it alone, among parts of what it failed with."""
    untuned = untuned_plan(network)
    poison, failures = describe_stage(untuned.stages[2]), []

    def hang(stages):
        if poison in map(describe_stage, stages):
            raise OSError("hangs")

    measured = {}
    tuned = tune(
        network,
        [Device(str(i), hang) for i in range(count)],
        batch=16,
        measured=measured,
        on_failure=lambda name, error: failures.append(f"{name}: {error}"),
    )
    assert tuned.end == "proven"
    assert [cost for cost in measured.values() if math.isinf(cost)] == [math.inf]
    assert poison not in map(describe_stage, tuned.best.stages)
    assert f"stage {untuned.stages[2].name}: devices failed 4 times with it alone; it is given up" in failures


def test_a_device_that_breaks_later_ends_the_search_with_what_it_had(network):
    calls = []

    def break_down(stages):
        calls.append(stages)
        if len(calls) > 4:
            raise OSError("burnt")

    tuned = tune(network, [Device("only", break_down)])
    assert tuned.end == "devices"
    check_costs(tuned)


def test_no_device_at_all_is_an_error_with_its_reason(network):
    def fail(stages):
        raise OSError("no such port")

    with pytest.raises(TuningError, match="nothing was measured: only: no such port"):
        tune(network, [Device("only", fail)])


def test_ctrl_c_keeps_what_was_measured(network):
    measured = {}

    def interrupt(progress):
        if progress.trials > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(network, [Device()], measured=measured, on_progress=interrupt)
    assert len(measured) > 20
    before = len(measured)
    tuned = tune(network, [Device()], measured=measured)
    assert tuned.history[-1].trials <= len(measured) - before
    check_costs(tuned)


class SimulatedTime:
    """Stands for the clock, the threads and the waiting of `tune_plan`.

    A device is at work for `LATENCY_S` whatever this computer does meanwhile, and what the loop itself takes is its
    processor time: other programs change neither.
    """

    def __init__(self):
        self.periods = []
        self._skipped = 0.0
        self._calls = {}

    def monotonic(self):
        return time.thread_time() + self._skipped

    def sleep(self, seconds):
        self._skipped += seconds

    def submit(self, measure, stages):
        future = Future()
        self._calls[future] = self.monotonic() + LATENCY_S, measure, stages
        return future

    def wait(self, futures, timeout, return_when):
        ends = [self._calls[future][0] for future in futures]
        until = min(ends) if return_when == FIRST_COMPLETED else max(ends)
        if timeout is not None:
            until = min(until, self.monotonic() + timeout)
        self._skipped += max(0.0, until - self.monotonic())
        now = self.monotonic()
        done = {future for future in futures if self._calls[future][0] <= now}
        for future in done:
            self._end(future, *self._calls.pop(future))
        self._skipped -= self.monotonic() - now  # what a device computes is not the loop's
        return done, set(futures) - done

    def _end(self, future, end, measure, stages):
        self.periods.append((end - LATENCY_S, end))
        try:
            future.set_result(measure(stages))
        except OSError as error:
            future.set_exception(error)


@pytest.mark.parametrize("count", [2, 8, 32])
def test_devices_are_kept_busy(network, count, monkeypatch):
    """Devices of fixed latency, one call in ten of which fails: the part of the time in which they work.

    From where all have begun, for first the stages there are have to be found; up to where three quarters are measured,
    for in the end most wait for who repeats what failed.
    """
    simulated, per_device, rng = SimulatedTime(), 12, random.Random(count)
    monkeypatch.setattr(module, "time", simulated)
    monkeypatch.setattr(module, "wait", simulated.wait)
    monkeypatch.setattr(module, "ThreadPoolExecutor", lambda _: contextlib.nullcontext(simulated))

    def work(stages):
        if rng.random() < 0.1:
            raise OSError("unplugged")

    devices = [Device(str(i), work) for i in range(count)]
    measured, started = {}, simulated.monotonic()
    tuned = tune(network, devices, batch=1, trials=per_device * count, model=BlindModel(), measured=measured)
    periods = simulated.periods
    assert len(periods) > len(measured) == per_device * count, "some fail, and their stages are measured elsewhere"
    since = sorted(begun for begun, _ in periods)[count - 1]
    till = started + next(entry.seconds for entry in tuned.history if entry.trials >= 0.75 * per_device * count)
    worked = sum(max(0, min(end, till) - max(begun, since)) for begun, end in periods)
    assert worked / (till - since) > 0.9 * count
    check_costs(tuned)
