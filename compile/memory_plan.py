"""Where each activation lies in the arena: byte offsets such that what is alive at one time does not overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Word alignment: kernels load four int8 at once.
ALIGNMENT = 4


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor and the steps during which its bytes must be kept.

    Parameters
    ----------
    name : str
        Unique.
    size : int
        Bytes.
    first, last : int
        First and last step (inclusive) in which the tensor is written or read.
    """

    name: str
    size: int
    first: int
    last: int

    def overlaps_in_time(self, other: PlannedTensor) -> bool:
        """Tell whether both are alive in one step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets in the arena.

    Parameters
    ----------
    offsets : dict
        First byte of each tensor by its name.
    arena_bytes : int
        Size of the arena.
    lower_bound_bytes : int
        The most bytes alive in one step: no plan without fusing or recomputing layers is smaller.
    """

    offsets: dict[str, int]
    arena_bytes: int
    lower_bound_bytes: int


def plan_memory(tensors: Iterable[PlannedTensor]) -> MemoryPlan:
    """Place tensors greedily in several orders, each at the lowest offset free in its lifetime; keep the smallest.

    For a chain of layers, which MobileNet V1 is, the result equals the lower bound.
    """
    tensors = list(tensors)
    steps = range(max(tensor.last for tensor in tensors) + 1)
    alive = [[tensor for tensor in tensors if tensor.first <= step <= tensor.last] for step in steps]
    lower_bound = max(sum(_aligned(tensor.size) for tensor in step) for step in alive)
    # The step with the most bytes, and outwards from it, is where the space is tight: the order by distance places
    # what lives there first.
    peak = max(steps, key=lambda step: sum(tensor.size for tensor in alive[step]))
    orders: tuple[Callable[[PlannedTensor], tuple[int, ...]], ...] = (
        lambda tensor: (-tensor.size, tensor.first),
        lambda tensor: (tensor.first, -tensor.size),
        lambda tensor: (-(tensor.last - tensor.first), -tensor.size),
        lambda tensor: (max(tensor.first - peak, peak - tensor.last, 0), -tensor.size),
    )
    plans = [_place(sorted(tensors, key=order)) for order in orders]
    offsets, size = min(plans, key=lambda plan: plan[1])
    return MemoryPlan(offsets, size, lower_bound)


def _place(tensors: list[PlannedTensor]) -> tuple[dict[str, int], int]:
    placed: list[tuple[int, PlannedTensor]] = []
    for tensor in tensors:
        offset = 0
        for other_offset, other in sorted(placed, key=lambda item: item[0]):
            if not tensor.overlaps_in_time(other):
                continue
            if offset + tensor.size <= other_offset:
                break
            offset = max(offset, _aligned(other_offset + other.size))
        placed.append((offset, tensor))
    offsets = {tensor.name: offset for offset, tensor in placed}
    return offsets, max((_aligned(offset + tensor.size) for offset, tensor in placed), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
