"""What every device can be asked, however it is reached."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.emit.export_library import compiler_version
from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.targets.device import Device

#: A number without its kind says nothing: what a `Measurement` counts.
MeasurementKind = Literal["instructions", "cycles", "seconds on the board"]

#: Runs before the first that counts, where what they cost varies: caches fill, buffers are allocated.
WARM_UPS = 3
#: Inferences whose costs are taken then. An odd number, so that the middle one is one of them.
TIMED_RUNS = 21


@dataclass(frozen=True)
class CheckedClock:
    """A board's clock that agrees with this computer's.

    Parameters
    ----------
    hz : int
        Its rate, as the board has it.
    error : float
        By how much it is faster than that, as a part of it.
    uncertainty : float
        By how much `error` may be off.
    interval_s : float
        How long the two were compared.
    """

    hz: int
    error: float
    uncertainty: float
    interval_s: float

    def __str__(self) -> str:
        """Return it in words."""
        return f"clock of {self.hz:,} Hz checked: {self.error:+.2%} ± {self.uncertainty:.2%} in {self.interval_s:.2f} s"


@dataclass(frozen=True)
class Measurement:
    """The cost of one inference, repeated.

    Parameters
    ----------
    kind : {"instructions", "cycles", "seconds on the board"}
        What `samples` are. Emulated devices give executed instructions, never time.
    samples : tuple of float
        One value an inference, raw, in the order taken; at least one, all greater than 0.
    error : float
        Largest error of a sample in the same unit; 0 means exact. Of the instructions of several threads, what runs
        differ by: waiting for each other takes sometimes more.
    threads : int or None
        Threads that shared an inference's work; None on a microcontroller. Instructions are those of all together, with
        what they spend waiting.
    warm_ups : int
        Runs before the first sample.
    clock : CheckedClock or None
        What times are told by; None where nothing is told of time, or where nobody compared it with another clock.

    Raises
    ------
    DeviceFaultError
        A sample is 0, less, or no number: what counts on the device stands still.
    """

    kind: MeasurementKind
    samples: tuple[float, ...]
    error: float = 0.0
    threads: int | None = None
    warm_ups: int = 0
    clock: CheckedClock | None = None

    def __post_init__(self) -> None:
        """Check the samples."""
        check_samples(self.kind, self.samples)

    @property
    def certainty(self) -> str:
        """How sure the samples are and how many threads they are of, in words."""
        if self.threads is not None and self.threads > 1 and self.kind == "instructions":
            return f"of {self.threads} threads together, waiting included; runs differ by {self.error:,.0f}"
        threads = "" if self.threads is None else ", one thread" if self.threads == 1 else f", {self.threads} threads"
        if self.kind != "instructions" and (self.kind != "cycles" or self.error):
            warm = f" after {self.warm_ups} to warm up" if self.warm_ups else ""
            return f"median of {len(self.samples)}{warm}{threads}"
        return ("exact" if self.error == 0 else f"error up to {self.error:g}") + threads


def check_samples(kind: MeasurementKind, samples: Sequence[float]) -> None:
    """Check that a device measured something each time.

    Raises
    ------
    DeviceFaultError
        As `Measurement`.
    """
    wrong = [sample for sample in samples if not 0 < sample < math.inf]
    if wrong or not samples:
        raise DeviceFaultError(
            f"{len(wrong)} of {len(samples)} measurements gave no cost ({wrong[0] if wrong else 'none'} {kind}): "
            "the device's counter or timer stands still"
        )


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer in one inference, in the kind and with the error of `Measurement`."""

    name: str
    kind: MeasurementKind
    value: float
    error: float = 0.0


@dataclass(frozen=True)
class MemoryUse:
    """Bytes the deployed network takes on the device, None where the device can't tell.

    Parameters
    ----------
    ram_bytes : int or None
        Everything in RAM that belongs to the network and its calls: arena with input and output, and stack, the worst
        case where it is known.
    flash_bytes : int or None
        Code and constants of the network (the shared library's loaded segments on Linux).
    arena_bytes : int or None
        Part of `ram_bytes`.
    stack_bytes : int or None
        Worst case, from the compiler's stack usage; what interrupts push is not in it.
    stack_measured_bytes : int or None
        The most that a run has used so far on the device: its high-water mark.
    stack_unknown_because : str or None
        Why there is no worst case.
    stack_limit_bytes : int or None
        What neither worst case nor high-water mark may pass: the worst case the artifact was published with.
    """

    ram_bytes: int | None
    flash_bytes: int | None
    arena_bytes: int | None = None
    stack_bytes: int | None = None
    stack_measured_bytes: int | None = None
    stack_unknown_because: str | None = None
    stack_limit_bytes: int | None = None


class DeviceSession(ABC):
    """One device, held open, with one network on it. A context manager: leaving it closes it.

    All methods raise a `thumbnet.runtime_tests.errors.SessionError` when the device fails.

    Attributes
    ----------
    device : Device
        The device.
    threads : int
        Threads that share an inference's work, on devices that run Linux.
    """

    device: Device
    threads: int = 1

    @property
    def setup_fault(self) -> str | None:
        """What of the board's own set-up failed, such as its clock, None where nothing is known to have."""
        return None

    @property
    def place(self) -> str | None:
        """What tells the board from others of its type, as far as that is known."""
        return " ".join(filter(None, (self.device.place, self.device.key))) or None

    @property
    def compiler(self) -> str:
        """Name and version of the compiler that builds what the device runs.

        Raises
        ------
        ToolchainError
            It is missing.
        """
        return compiler_version(self.device.board.cross_compiler)

    @abstractmethod
    def load(self, artifact: Artifact) -> None:
        """Put a network on the device (build and flash firmware, or upload a library)."""

    @abstractmethod
    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """Run one inference: input ``[H, W, C]`` in the artifact's input dtype, output ``[classes]``."""

    @abstractmethod
    def run_layers(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run one inference and return every layer's output ``[H, W, C]`` (or ``[C]``) by the layer's name."""

    @abstractmethod
    def measure(self, image: NDArray[Any], repeat: int) -> Measurement:
        """Run `repeat` inferences of one input and return what each cost."""

    @abstractmethod
    def profile(self, image: NDArray[Any]) -> list[LayerCost]:
        """Run one inference and return each layer's cost, in order of execution."""

    def predict_cycles(self, image: NDArray[Any]) -> CyclePrediction | None:
        """Run one inference, whole and by stages, and return the cycles a board would take, by a model of its core.

        None where cycles or time are measured, or where there is no model of the core.

        Raises
        ------
        ToolchainError
            What the model needs is not installed.
        """
        del image
        return None

    def predict_cycles_or_say_why(self, image: NDArray[Any]) -> tuple[CyclePrediction | None, str | None]:
        """Return what `predict_cycles` does and, where the model's tool is missing, None and the reason."""
        try:
            return self.predict_cycles(image), None
        except ToolchainError as error:
            return None, str(error)

    @abstractmethod
    def memory_use(self) -> MemoryUse:
        """Return the bytes the network takes on the device."""

    @abstractmethod
    def close(self) -> None:
        """Let the device go. May be called twice."""

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()
