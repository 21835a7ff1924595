"""Where each activation lies in the arena: byte offsets such that what is alive at one time does not overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Word alignment: kernels load four int8 at once.
ALIGNMENT = 4
#: Times that a plan above its lower bound is tried again in another order.
_REPAIRS = 200


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
    over : (str, int), optional
        A tensor that this one may lie over, and the bytes by which it may at most start behind it.
    """

    name: str
    size: int
    first: int
    last: int
    over: tuple[str, int] | None = None

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
        The most bytes alive in one step: no plan of these tensors is smaller.
    """

    offsets: dict[str, int]
    arena_bytes: int
    lower_bound_bytes: int


@dataclass(frozen=True)
class _Placement:
    order: list[PlannedTensor]
    offsets: dict[str, int]
    size: int


def plan_memory(tensors: Iterable[PlannedTensor]) -> MemoryPlan:
    """Place tensors greedily in several orders, each at the lowest offset free in its lifetime; keep the smallest.

    For a chain of layers, which MobileNet V1 is, the result equals the lower bound.
    """
    tensors = list(tensors)
    steps = range(max(tensor.last for tensor in tensors) + 1)
    alive = [_bytes_alive(tensors, step) for step in steps]
    # The step with the most bytes, and outwards from it, is where the space is tight: the order by distance places
    # what lives there first.
    peak = max(steps, key=lambda step: alive[step])
    orders: tuple[Callable[[PlannedTensor], tuple[int, ...]], ...] = (
        lambda tensor: (-tensor.size, tensor.first),
        lambda tensor: (tensor.first, -tensor.size),
        lambda tensor: (-(tensor.last - tensor.first), -tensor.size),
        lambda tensor: (max(tensor.first - peak, peak - tensor.last, 0), -tensor.size),
        # A tensor over another starts before it: the last one lowest.
        lambda tensor: (int(tensor.first == tensor.last), -tensor.first, -tensor.size),
    )
    best = min((_place(sorted(tensors, key=order)) for order in orders), key=lambda placement: placement.size)
    placement = best
    for _ in range(_REPAIRS):
        if best.size <= max(alive):
            break
        # What reaches highest found the good places taken: it goes first, and so on.
        highest = max(placement.order, key=lambda tensor: placement.offsets[tensor.name] + tensor.size)
        placement = _place([highest, *(tensor for tensor in placement.order if tensor is not highest)])
        if placement.size < best.size:
            best = placement
    return MemoryPlan(best.offsets, best.size, max(alive))


def _bytes_alive(tensors: list[PlannedTensor], step: int) -> int:
    alive = {tensor.name: tensor for tensor in tensors if tensor.first <= step <= tensor.last}
    total = sum(_aligned(tensor.size) for tensor in alive.values())
    for tensor in alive.values():
        if tensor.over is not None and tensor.over[0] in alive:
            below, distance = alive[tensor.over[0]], tensor.over[1]
            sizes = _aligned(tensor.size), _aligned(below.size)
            # At the distance that shares the most bytes.
            nearest = min(distance, max(sizes[1] - sizes[0], 0))
            together = max(sizes[1], nearest + sizes[0]) - min(nearest, 0)
            total -= max(sum(sizes) - together, 0)
    return total


def _place(order: list[PlannedTensor]) -> _Placement:
    offsets: dict[str, int] = {}
    for index, tensor in enumerate(order):
        taken = sorted(
            _taken(tensor, other, offsets[other.name]) for other in order[:index] if tensor.overlaps_in_time(other)
        )
        offset = 0
        for begin, end in taken:
            if begin > offset:
                break
            offset = max(offset, end)
        offsets[tensor.name] = offset
    return _Placement(order, offsets, max(_aligned(offsets[tensor.name] + tensor.size) for tensor in order))


def _taken(tensor: PlannedTensor, other: PlannedTensor, offset: int) -> tuple[int, int]:
    """Return the first offset at which a tensor harms one lying at `offset`, and the next at which it does not."""
    begin, end = offset - tensor.size + 1, offset + _aligned(other.size)
    if tensor.over is not None and tensor.over[0] == other.name:
        begin = max(begin, offset + tensor.over[1] + 1)
    if other.over is not None and other.over[0] == tensor.name:
        end = min(end, _aligned(offset - other.over[1]))
    return begin, end


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
