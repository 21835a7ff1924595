"""The benchmark's tables: each network beside other runtimes."""

# ruff: noqa: PLC0415 - heavy imports sit in the functions, so that --help is there at once

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from thumbnet.tools.output import print_table

if TYPE_CHECKING:
    from thumbnet.runtime_tests.session import Measurement
    from thumbnet.tools.benchmark import Result

#: What of a network, or of a runtime, stands beside what in a row.
_COUNTED = (
    *("network", "weights", "dead channels", "core", "runtime", "instructions", "per MAC", "to thumbnet"),
    "cycles (predicted)",
    *("RAM: arena", "RAM: stack, worst case", "flash: image", "flash: network", "right answers"),
)
_TIMED = ("network", "runtime", "milliseconds, median", "from 25 % to 75 %", "to thumbnet", "right answers")


def describe(result: Result) -> str:
    """Return which network a result is of, and where it ran."""
    return (
        f"{_network(result)} ({result.weights} weights), dead channels {result.dead_channels},"
        f" on {result.board.name} ({result.board.core})"
    )


def print_results(results: Sequence[Result]) -> list[dict[str, Any] | None]:
    """Print each result beside its rivals, and return its best rival, None where it has none."""
    from thumbnet.tools.benchmark import load_rivals, rivals_of

    rivals = load_rivals()
    found = [rivals_of(result, rivals) for result in results]
    counted, timed = [], []
    for result, others in zip(results, found, strict=True):
        if result.whole.kind == "instructions":
            counted += [_counted_row(result), *(_counted_rival(result, rival) for rival in others)]
        else:
            timed += _timed_rows(result, others)
    if counted:
        title = "One inference, batch 1, memory in bytes; other runtimes as in tools/rivals.json, with sources"
        _print_filled(title, _COUNTED, counted)
    if timed:
        turns = max(len(result.whole.samples) for result in results if result.whole.kind != "instructions")
        title = f"One inference on this computer, batch 1, one thread each, {turns} times in turns; TVM's own schedules"
        print_table(title, _TIMED, timed)
        _say_what_is_missing()
    return [others[0] if others else None for others in found]


def _print_filled(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table without the columns that no row has a value for."""
    filled = [at for at in range(len(columns)) if any(row[at] is not None for row in rows)]
    print_table(title, [columns[at] for at in filled], [[row[at] for at in filled] for row in rows])


def _say_what_is_missing() -> None:
    from thumbnet.tools.onnx_rival import missing_packages

    if missing := missing_packages():
        click.echo(
            f"{' and '.join(missing)} not installed: nothing to compare with; pip install -e '.[bench]' brings it"
        )


def _network(result: Result) -> str:
    return f"{result.network}, {'int8' if result.quantize == 'int8' else 'float32'}"


def _runtime(rival: dict[str, Any]) -> str:
    return f"{rival['runtime']} ({rival['version'] or 'version not noted'})"


def _counted_row(result: Result) -> Sequence[object]:
    from thumbnet.tools.stage_costs import per_mac

    cost = None if result.cost is None else round(result.cost)
    threads = "" if result.threads == 1 else f", {result.threads} threads"
    # On Linux all channels are kept, and what ran is the network's library.
    linux = result.board.family != "cortex-m"
    dead_channels = None if linux else result.dead_channels
    return (
        *(_network(result), result.weights, dead_channels, result.board.core, f"thumbnet{threads}"),
        *(cost, cost and result.macs and per_mac(cost, result.macs), None),
        None if result.cycles is None or cost is None else round(result.cycles.cycles),
        *(result.arena_bytes, result.memory.stack_bytes),
        *(result.flash_bytes, None if linux else result.network_flash_bytes, result.right),
    )


def _counted_rival(result: Result, rival: dict[str, Any]) -> Sequence[object]:
    from thumbnet.tools.stage_costs import per_mac

    cost = rival["instructions"]
    return (
        *("", "", None, rival["core"], _runtime(rival)),
        *(cost, result.macs and per_mac(cost, result.macs), _ratio(cost, result), None),
        *(rival["ram_bytes"], None, rival["flash_bytes"], None, rival["equal_to_tflite"]),
    )


def _timed_rows(result: Result, rivals: Sequence[dict[str, Any]]) -> list[Sequence[object]]:
    own = (*_milliseconds(result.whole), None) if result.right else (None, None, None)
    rows: list[Sequence[object]] = [(_network(result), "thumbnet", *own, result.right)]
    for rival in rivals:
        assert result.rival is not None
        ratio = _ratio(rival["seconds"], result)
        rows.append(("", _runtime(rival), *_milliseconds(result.rival), ratio, None))
    return rows


def _milliseconds(measured: Measurement) -> tuple[str, str]:
    import numpy as np

    low, middle, high = np.percentile(measured.samples, [25, 50, 75]) * 1e3
    return f"{middle:.2f}", f"{low:.2f} to {high:.2f}"


def _ratio(cost: float, result: Result) -> str | None:
    return None if result.cost is None else f"{cost / result.cost:.2f}x"
