"""What Cortex-M3, M4 and M33 take for each class of instructions, from Arm's tables.

Sources: Cortex-M3 Technical Reference Manual (r2p1) and Cortex-M4 (r0p1), "Instruction set summary" and "Load/store
timings"; Cortex-M4's "FPU instruction set table". Arm publishes none for the Cortex-M33: the M4's stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Classes of `count_classes` that are no instructions of their own.
EVENTS = frozenset({"it_folded", "taken_to_unaligned_wide", "unaligned_penalty", "addr_interlock"})
#: Multiple loads and stores, 1 + N cycles; they are next to nothing in the published cases.
MULTIPLE = frozenset({"ldm", "stm", "vldm", "vstm", "push", "pop"})


@dataclass(frozen=True)
class CoreTiming:
    """One core's table.

    Parameters
    ----------
    source : str
        Whose table it is, for people.
    refill : int
        Cycles to fill the pipeline after a jump: 1 to 3 in the manuals, by what the target is and what was foreseen.
    cycles : mapping of str to float
        By class; what isn't there takes one cycle, or what its kind of jump or multiple load does.
    band : tuple of float or None
        Lowest and highest error on published measurements, as fractions: `thumbnet bench --validate` prints them. None
        where there are none.
    cases : int
        How many measurements that were.
    """

    source: str
    refill: int
    cycles: Mapping[str, float] = field(hash=False)
    band: tuple[float, float] | None = None
    cases: int = 0

    def price(self, kind: str) -> float:
        """Return the cycles of one instruction of a class."""
        if kind in self.cycles:
            return self.cycles[kind]
        name, _, rest = kind.partition("_")
        if name in MULTIPLE:
            registers, _, returns = rest.partition("_")
            return 1 + int(registers) + (self.refill if returns else 0)
        if kind in {"branch_taken", "bl"}:
            return 1 + self.refill
        if kind in {"bx_blx", "table_branch", "ldr_pc"}:
            return 2 + self.refill
        return 1

    def price_all(self, counts: Mapping[str, int]) -> float:
        """Return the cycles of all instructions of `count_classes`, without waits for the flash."""
        return sum(self.price(kind) * count for kind, count in counts.items())

    def multiple_share(self, counts: Mapping[str, int]) -> float:
        """Return the part of the cycles that multiple loads and stores take."""
        multiple = {kind: count for kind, count in counts.items() if kind.partition("_")[0] in MULTIPLE}
        return self.price_all(multiple) / (self.price_all(counts) or 1)


_M3: dict[str, float] = {
    **dict.fromkeys(("ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "vldr"), 2),
    **dict.fromkeys(("str_reg", "str_reg_after_ldr", "vstr"), 2),
    **dict.fromkeys(("ldrd", "strd"), 3),
    "mla": 2,
    "mul_long": 4,  # 3 to 5, by the operands
    "mla_long": 5.5,  # 4 to 7
    "div": 7,  # 2 to 12
    "it_folded": -1,  # it was counted as an IT before
}
_M4 = _M3 | dict.fromkeys(("mla", "mul_long", "mla_long"), 1.0)
_M4 |= dict.fromkeys(("vfma", "vfms", "vmla", "vmls", "vnmla", "vnmls"), 3.0) | dict.fromkeys(("vdiv", "vsqrt"), 14.0)

#: By core.
TIMINGS = {
    "cortex-m3": CoreTiming("Cortex-M3", refill=2, cycles=_M3),
    "cortex-m4": CoreTiming("Cortex-M4", refill=2, cycles=_M4, band=(-0.06, 0.01), cases=6),
    "cortex-m33": CoreTiming("Cortex-M4, for the M33", refill=2, cycles=_M4, band=(-0.02, 0.02), cases=2),
}
