"""The loop of a search: stages go out to whoever measures, costs come back, until the best plan is known or time is up.

Who measures is an argument, so that this module knows nothing of devices.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal, Protocol

from thumbnet.compile.errors import TuningError
from thumbnet.compile.plan.choose_plan import PlacedPlan
from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.plan_search import PlanSearch

#: Failures in a row after which a device is taken for gone: one that never worked, and one that did. It is tried again
#: now and then; when all are gone, the search ends.
MOST_FIRST_FAILURES, MOST_FAILURES = 3, 7
#: How long a device that failed is left out, in seconds, doubled with each failure in a row.
REST_S, LONGEST_REST_S = 1.0, 60.0
#: Failures of devices with one stage alone after which that is given up.
MOST_LONE_FAILURES = 4

#: Why a search ended.
End = Literal["proven", "trials", "time", "devices"]


class StageMeasurer(Protocol):
    """One device that measures stages; calls of it don't overlap."""

    name: str

    def measure(self, stages: Sequence[StagePlan]) -> Sequence[float]:
        """Return what each stage costs, infinite where it gave wrong bytes.

        Raises
        ------
        Exception
            The device failed; nothing of it is kept.
        """


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Parameters
    ----------
    trials : int
        Stages measured by it.
    seconds : float
        Since its start.
    untuned, best : float
        Cost of the plan without tuning, and of the best plan measured whole so far.
    bound : float
        What no plan is expected to beat: at `best`, the search is at its end.
    """

    trials: int
    seconds: float
    untuned: float
    best: float
    bound: float


@dataclass(frozen=True)
class TunedPlan:
    """What a search found.

    Parameters
    ----------
    untuned, best : PlacedPlan
        The plan without tuning, and the best one measured whole.
    untuned_costs, best_costs : tuple of float
        What their stages cost.
    history : tuple of Progress
        One entry a batch.
    end : str
        Why it ended: ``"proven"`` where every stage that a better plan could use is measured.
    """

    untuned: PlacedPlan
    best: PlacedPlan
    untuned_costs: tuple[float, ...]
    best_costs: tuple[float, ...]
    history: tuple[Progress, ...]
    end: End


class _Worker:
    """A device with what it was given."""

    def __init__(self, measurer: StageMeasurer) -> None:
        self.measurer = measurer
        self.failures = 0
        self.worked = False
        self.rests_until = 0.0

    @property
    def gone(self) -> bool:
        return self.failures >= (MOST_FAILURES if self.worked else MOST_FIRST_FAILURES)


def tune_plan(
    search: PlanSearch,
    untuned: PlacedPlan,
    measurers: Sequence[StageMeasurer],
    *,
    trials: int,
    batch: int,
    time_limit_s: float = math.inf,
    rivals: Sequence[StagePlan] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_failure: Callable[[str, Exception], None] = lambda _name, _error: None,
) -> TunedPlan:
    """Measure what `search` proposes until the best plan is proven, or a limit is reached.

    Ctrl-C ends it with `KeyboardInterrupt`; what was measured is in the search by then.

    Parameters
    ----------
    search : PlanSearch
        What is known, and proposes.
    untuned : PlacedPlan
        Measured first: what tuning has to beat.
    measurers : sequence of StageMeasurer
        At least one; all work at the same time.
    trials : int
        Stages to measure at most, those of `untuned` included.
    batch : int
        Stages given to a device at a time.
    time_limit_s : float
        Nothing but what is left of `untuned` is begun later.
    rivals : sequence of StagePlan
        Measured next, whatever the search makes of them: what its result will be compared with.
    on_progress : callable
        Told after each batch.
    on_failure : callable
        Told a device's name and what it raised; or which stage devices fail of.

    Raises
    ------
    TuningError
        No device measured anything.
    """
    loop = _Loop(search, untuned, measurers, batch=batch, on_progress=on_progress, on_failure=on_failure)
    loop.add(rivals)
    end = loop.run(trials, time.monotonic() + time_limit_s)
    best = search.best_known_plan()
    if best is None or not loop.history:
        failure = f": {loop.last_failure}" if loop.last_failure else ""
        raise TuningError(f"nothing was measured{failure}")
    return TunedPlan(untuned, best, search.costs_of(untuned), search.costs_of(best), tuple(loop.history), end)


class _Loop:
    def __init__(
        self,
        search: PlanSearch,
        untuned: PlacedPlan,
        measurers: Sequence[StageMeasurer],
        *,
        batch: int,
        on_progress: Callable[[Progress], None],
        on_failure: Callable[[str, Exception], None],
    ) -> None:
        self._search, self._untuned, self._batch = search, untuned, batch
        self._on_progress, self._on_failure = on_progress, on_failure
        self._workers = [_Worker(measurer) for measurer in measurers]
        self._running: dict[Future[Sequence[float]], tuple[_Worker, list[StagePlan]]] = {}
        #: What is to be measured before anything else, in parts that go to one device each.
        self._waiting = [stages] if (stages := search.await_unknown(untuned.stages)) else []
        #: What comes after that, found while devices work: they don't wait for the plans that it takes.
        self._proposed: list[StagePlan] = []
        #: How often devices have failed with a stage alone, by the stage's key.
        self._suspects: Counter[str] = Counter()
        self._measured = 0
        self._learned = False
        self._started = time.monotonic()
        self.history: list[Progress] = []
        self.last_failure: str | None = None

    def add(self, stages: Sequence[StagePlan]) -> None:
        """Measure stages before any that the search proposes."""
        if unknown := self._search.await_unknown(stages):
            self._waiting.append(unknown)

    def run(self, trials: int, deadline: float) -> End:
        if not self._waiting:  # all of it known from earlier searches
            self._report()
        with ThreadPoolExecutor(len(self._workers)) as pool:
            try:
                return self._run(pool, trials, deadline)
            finally:
                for future in self._running:
                    future.cancel()

    def _run(self, pool: ThreadPoolExecutor, trials: int, deadline: float) -> End:
        end: End = "proven"
        while True:
            idle = self._idle()
            while idle:
                # Without the cost of the plan without tuning nothing could be said.
                if not self._waiting and time.monotonic() >= deadline:
                    end = "time"
                    break
                awaited = sum(len(stages) for _, stages in self._running.values())
                room = min(self._batch, trials - self._measured - awaited)
                if room <= 0:
                    end = "trials"
                    break
                worker = idle.pop()
                stages = self._take(worker, room)
                if not stages:
                    idle.append(worker)
                    break
                self._running[pool.submit(worker.measurer.measure, stages)] = worker, stages
            if self._learned:
                self._report()
            if self._running:
                if not self._proposed:
                    self._proposed = self._search.propose(self._batch * (len(self._workers) - 1))
                self._collect()
            elif self._all_gone():
                return "devices"
            elif idle or end != "proven":
                return end
            else:
                time.sleep(0.05)  # all that could work rest

    def _idle(self) -> list[_Worker]:
        if self._all_gone():
            return []
        busy = {id(worker) for worker, _ in self._running.values()}
        now = time.monotonic()
        return [worker for worker in self._workers if id(worker) not in busy and now >= worker.rests_until]

    def _all_gone(self) -> bool:
        return all(worker.gone for worker in self._workers)

    def _take(self, worker: _Worker, count: int) -> list[StagePlan]:
        """Return what a device shall measure next."""
        for index, part in enumerate(self._waiting):
            # One that may be what devices fail of goes to those that work, so that none fails of it again and again.
            if not (worker.failures and self._is_suspect(part)):
                self._waiting[index : index + 1] = [part[count:]] if part[count:] else []
                return part[:count]
        if not self._proposed:
            self._proposed = self._search.propose(count)
        if not self._proposed and self._waiting:
            return self._waiting.pop(0)
        taken, self._proposed = self._proposed[:count], self._proposed[count:]
        return taken

    def _is_suspect(self, part: Sequence[StagePlan]) -> bool:
        return len(part) == 1 and self._search.key(part[0]) in self._suspects

    def _collect(self) -> None:
        now = time.monotonic()
        rests = [worker.rests_until - now for worker in self._workers if worker.rests_until > now]
        done, _ = wait(self._running, timeout=min(rests, default=None), return_when=FIRST_COMPLETED)
        for future in done:
            worker, stages = self._running.pop(future)
            try:
                costs = future.result()
            except Exception as error:  # whatever a device or its connection raises
                self._fail(worker, stages, error)
                continue
            worker.failures, worker.worked = 0, True
            self._measured += len(stages)
            self._search.learn(stages, costs)
            self._learned = True

    def _fail(self, worker: _Worker, stages: list[StagePlan], error: Exception) -> None:
        worker.rests_until = time.monotonic() + min(REST_S * 2**worker.failures, LONGEST_REST_S)
        worker.failures += 1
        self.last_failure = f"{worker.measurer.name}: {error}"
        self._on_failure(worker.measurer.name, error)
        # They go to whoever is free next; in halves, for one of them may be what the device failed of.
        if half := len(stages) // 2:
            self._waiting += [stages[:half], stages[half:]]
            return
        key = self._search.key(stages[0])
        self._suspects[key] += 1
        if self._suspects[key] < MOST_LONE_FAILURES:
            self._waiting.append(stages)
        else:
            reason = TuningError(f"devices failed {MOST_LONE_FAILURES} times with it alone; it is given up")
            self._on_failure(f"stage {stages[0].name}", reason)
            self._measured += 1
            self._search.learn(stages, [math.inf])

    def _report(self) -> None:
        self._learned = False
        best = self._search.best_known_plan()
        progress = Progress(
            trials=self._measured,
            seconds=time.monotonic() - self._started,
            untuned=sum(self._search.costs_of(self._untuned)),
            best=math.inf if best is None else sum(self._search.costs_of(best)),
            bound=self._search.bound(),
        )
        self.history.append(progress)
        self._on_progress(progress)
