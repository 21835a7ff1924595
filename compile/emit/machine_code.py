"""What each function of an Arm program does to the stack, read from its machine code (Thumb, as objdump prints it)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_CONDITIONS = "eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)(?:\s+([^@;]*))?(?:[@;]\s*\(([0-9a-f]+))?")
_SYMBOL = re.compile(r"^\s*\d+:\s+([0-9a-f]+)\s+(\d+)\s+FUNC\s+\S+\s+\S+\s+(\d+)\s+(\S+)")
_MNEMONIC = re.compile(rf"^([a-z0-9]+?)({_CONDITIONS})?(?:\.[a-z0-9]+)*$")
#: Ends in what looks like a condition and isn't one.
_WHOLE = {"bls": ("b", "ls"), "blt": ("b", "lt"), "ble": ("b", "le"), "bics": ("bics", "")}
_WHOLE |= {name: (name, "") for name in ("movs", "muls", "lsls", "adcs", "sbcs", "mls", "svc", "wls", "dls")}
_DATA = {".word", ".short", ".byte", "Address"}
#: Low-overhead loops: a branch that may be taken, its target the last operand.
_LOOPS = {"le", "letp", "wls", "wlstp"}
_BRANCHES = {"b", "cbz", "cbnz", *_LOOPS}
#: Which way the stack pointer moves: 1 where the stack gets deeper.
_MULTIPLE = {"stmdb": 1, "stmfd": 1, "vstmdb": 1, "ldmia": -1, "ldm": -1, "vldmia": -1}
_ADDITIONS = {"sub": 1, "subw": 1, "add": -1, "addw": -1}
_WRITE_BACK = re.compile(r"\[sp(?:, #(-?\d+)\]!|\], #(-?\d+)|.*\]!|\], )")


@dataclass(frozen=True)
class Call:
    """A call: whom (None through a pointer that isn't known), and how deep the stack is then, in bytes."""

    target: str | None
    depth: int


@dataclass
class Function:
    """A function's own use of the stack.

    Parameters
    ----------
    name : str
        Its symbol.
    frame_bytes : int
        The most it has on the stack itself, below what the stack pointer was at its entry.
    calls : list of Call
        In any order; a tail call among them, its depth being what is still on the stack then.
    unknown_because : str or None
        Why `frame_bytes` is not to be trusted.
    """

    name: str
    frame_bytes: int = 0
    calls: list[Call] = field(default_factory=list)
    unknown_because: str | None = None


@dataclass(frozen=True)
class _Instruction:
    address: int
    name: str  # without condition and width
    condition: str
    operands: str
    literal: int | None  # the address that a load relative to the program counter reads


def read_functions(disassembly: str, symbols: str) -> dict[str, Function]:
    """Follow every function's instructions.

    Parameters
    ----------
    disassembly : str
        From ``objdump -d --no-show-raw-insn``.
    symbols : str
        From ``readelf -sW`` of the same linked program.

    Returns
    -------
    dict of str to Function
        By symbol; symbols of one address share one `Function`, named by the first. A second function of the same name
        has its address behind it.
    """
    code, words = _read_disassembly(disassembly)
    ranges = _read_symbols(symbols, max(code, default=0))
    starts = sorted(ranges)

    def name_of(address: int) -> str:
        # The library's assembly jumps into the middle of its functions too; the whole function is the upper bound.
        at = bisect_right(starts, address) - 1
        end, found = ranges[starts[at]] if at >= 0 else (0, [])
        return found[0] if address < end else f"the code at {address:#x}"

    addresses = sorted(code)
    functions = {}
    for start, (end, found) in ranges.items():
        body = {a: code[a] for a in addresses[bisect_right(addresses, start - 1) : bisect_right(addresses, end - 1)]}
        function = _Walk(found[0], start, body, words=words, name_of=name_of).function
        functions.update(dict.fromkeys(found, function))
    return functions


def _read_disassembly(text: str) -> tuple[dict[int, _Instruction], dict[int, int]]:
    code, words = {}, {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        address, mnemonic = int(found[1], 16), found[2]
        operands = (found[3] or "").strip()
        if mnemonic in _DATA:
            if mnemonic == ".word":
                words[address] = int(operands.split()[0], 16)
            continue
        name, condition = _split_mnemonic(mnemonic)
        literal = int(found[4], 16) if found[4] else None
        code[address] = _Instruction(address, name, condition, operands, literal)
    return code, words


def _split_mnemonic(mnemonic: str) -> tuple[str, str]:
    bare = mnemonic.split(".", maxsplit=1)[0]
    if bare in _WHOLE:
        return _WHOLE[bare]
    found = _MNEMONIC.match(mnemonic)
    return (found[1], found[2] or "") if found else (bare, "")


def _read_symbols(text: str, last: int) -> dict[int, tuple[int, list[str]]]:
    """Return by start address the end address and the names of every function."""
    sizes: dict[int, int] = {}
    names: dict[int, list[str]] = {}
    for found in filter(None, map(_SYMBOL.match, text.splitlines())):
        start = int(found[1], 16) & ~1
        sizes[start] = max(sizes.get(start, 0), int(found[2]))
        names.setdefault(start, []).append(found[4])
    starts = sorted(sizes)
    taken: set[str] = set()
    for start in starts:
        names[start] = [f"{name} at {start:#x}" if name in taken else name for name in names[start]]
        taken.update(names[start])
    following = dict(zip(starts, [*starts[1:], last + 4], strict=True)) if starts else {}
    return {start: (start + (sizes[start] or following[start] - start), names[start]) for start in starts}


class _Walk:
    """One function, followed from its entry along every branch with the depth of the stack."""

    def __init__(
        self,
        name: str,
        start: int,
        body: Mapping[int, _Instruction],
        *,
        words: Mapping[int, int],
        name_of: Callable[[int], str],
    ) -> None:
        self.function = Function(name)
        self._body, self._words, self._name_of = body, words, name_of
        self._order = list(body)
        self._next = dict(zip(self._order, self._order[1:], strict=False))
        self._depths: dict[int, int] = {}
        self._calls: dict[int, Call] = {}
        self._table_depth: int | None = None  # of a jump through a table, whose targets aren't read
        self._steps = 0
        if start in body:
            self._follow(start, 0)
        else:
            self._doubt("its code isn't there")
        while self._table_depth is not None and self.function.unknown_because is None:
            # What is reached in no other way is reached through a table.
            unreached = next((address for address in self._order if address not in self._depths), None)
            if unreached is None:
                break
            self._follow(unreached, self._table_depth)
        self.function.frame_bytes = max(self._depths.values(), default=0)
        self.function.calls = list(self._calls.values())

    def _doubt(self, reason: str) -> None:
        self.function.unknown_because = self.function.unknown_because or reason

    def _follow(self, start: int, entry_depth: int) -> None:
        waiting = [(start, entry_depth)]
        while waiting:
            address, depth = waiting.pop()
            known = self._depths.get(address)
            if address not in self._body or (known is not None and known >= depth):
                continue
            self._steps += 1
            if self._steps > 64 * len(self._body):
                self._doubt("its stack grows in a loop")
                return
            self._depths[address] = depth
            instruction = self._body[address]
            after = depth + self._grown(instruction)
            if after < 0:
                self._doubt(f"it takes more from the stack than it put there, at {address:#x}")
                return
            targets, goes_on = self._targets(instruction, after)
            waiting += [(target, after) for target in targets]
            following = self._next.get(address)
            if goes_on and following is not None:
                waiting.append((following, after))
            elif goes_on:
                # Depth after the last instruction counts as well, be it of a call that never returns.
                self._depths[address] = max(depth, after)

    def _grown(self, instruction: _Instruction) -> int:
        """Return by how many bytes an instruction makes the stack deeper."""
        grown = _grown(instruction)
        if grown is None and instruction.name == "add":
            grown = self._grown_by_register(instruction)
        if grown is None:
            self._doubt(
                f"{instruction.name} {instruction.operands} at {instruction.address:#x} moves the stack pointer"
            )
            return 0
        # Taken back under a condition: on the way that goes on it is still there.
        return max(grown, 0) if instruction.condition else grown

    def _grown_by_register(self, instruction: _Instruction) -> int | None:
        """Large frames of Armv6-M: a constant is brought into a register, then ``add sp, r4``."""
        register = instruction.operands.split(",")[-1].strip()
        at = self._order.index(instruction.address)
        value: int | None = None
        for address in self._order[max(0, at - 8) : at]:
            before = self._body[address]
            target, _, rest = before.operands.partition(", ")
            if target != register:
                continue
            constant = re.fullmatch(rf"(?:{register}, )?#(\d+)", rest)
            if before.name == "ldr" and before.literal is not None:
                value = self._words.get(before.literal)
            elif before.name == "movs" and constant:
                value = int(constant[1])
            elif before.name == "lsls" and constant and value is not None:
                value <<= int(constant[1])
            else:
                value = None
        return None if value is None else (1 << 32) - value if value >> 31 else -value

    def _targets(self, instruction: _Instruction, depth: int) -> tuple[list[int], bool]:
        """Return where the code goes on inside the function, and whether it also goes on behind the instruction."""
        name, operands = instruction.name, instruction.operands
        if name in ("bl", "blx"):
            target = _address(operands)
            if target is not None and target in self._body and target != self._order[0]:
                return [target], True  # a subroutine of the library's assembly inside its function
            self._calls[instruction.address] = Call(self._called(operands), depth)
            return [], True
        if name in _BRANCHES:
            goes_on = bool(instruction.condition) or name != "b"
            target = _address(operands)
            if target is not None and target in self._body:
                return [target], goes_on
            if target is not None:
                self._calls[instruction.address] = Call(self._called(operands), depth)
            return [], goes_on
        ends = name == "udf"
        if name in ("pop", "ldmia", "ldm"):
            ends = "pc" in _registers(operands)
        elif name in ("bx", "bxns"):
            ends = True
            if operands != "lr" and not self._popped(instruction, operands):
                self._calls[instruction.address] = Call(None, depth)
        elif name in ("tbb", "tbh") or (name in ("mov", "ldr", "add") and operands.startswith("pc,")):
            ends = True
            if "[sp]" not in operands:  # else a return
                self._table_depth = max(depth, self._table_depth or 0)
        return [], bool(instruction.condition) or not ends

    def _popped(self, instruction: _Instruction, register: str) -> bool:
        """Whether a jump to a register is a return: its value was popped just before."""
        at = self._order.index(instruction.address)
        before = self._body[self._order[at - 1]] if at else instruction
        return before.name == "pop" and register in _registers(before.operands)

    def _called(self, operands: str) -> str | None:
        target = _address(operands)
        return None if target is None else self._name_of(target)


def _address(operands: str) -> int | None:
    """Return the target of a branch, None where it is a register."""
    found = re.search(r"\b([0-9a-f]+) <", operands)
    return int(found[1], 16) if found else None


def _grown(instruction: _Instruction) -> int | None:
    """Return by how many bytes an instruction makes the stack deeper, None where it can't be told."""
    name, operands = instruction.name, instruction.operands
    grown: int | None = 0
    if name in ("push", "vpush", "pop", "vpop"):
        grown = _list_bytes(operands) * (1 if name.endswith("push") else -1)
    elif operands.startswith("sp!"):
        grown = _list_bytes(operands) * _MULTIPLE[name] if name in _MULTIPLE else None
    elif moved := _WRITE_BACK.search(operands):
        # objdump shows some vector instructions as a coprocessor's, whose step it can't know.
        step = moved[1] or moved[2]
        grown = -int(step) if step and name.startswith(("str", "ldr", "vstr", "vldr")) else None
    elif name.startswith("<"):  # <UNDEFINED>
        grown = None
    elif name == "msr":
        grown = None if operands.lower().startswith(("msp,", "psp,")) else 0
    elif re.match(r"sp\b", operands) and not name.startswith(("cmp", "tst", "stm", "ldm", "vstm", "vldm")):
        constant = re.fullmatch(r"sp, (?:sp, )?#(-?\d+)", operands)
        grown = int(constant[1]) * _ADDITIONS[name] if constant and name in _ADDITIONS else None
    return grown


def _registers(operands: str) -> list[str]:
    inside = re.search(r"\{([^}]*)\}", operands)
    return [part.strip() for part in inside[1].split(",")] if inside else []


def _list_bytes(operands: str) -> int:
    return sum(_range_bytes(part) for part in _registers(operands))


def _range_bytes(part: str) -> int:
    first, _, last = part.partition("-")
    size = {"d": 8, "q": 16}.get(first[0], 4)
    return size if not last else size * (int(last[1:]) - int(first[1:]) + 1)


def read_frames(callgraphs: Iterable[str]) -> dict[str, int | None]:
    """Read the compiler's own account of its frames, to check the machine code against.

    Parameters
    ----------
    callgraphs : iterable of str
        Files of ``-fcallgraph-info=su``, one a translation unit.

    Returns
    -------
    dict of str to int or None
        Bytes by symbol, None where they depend on the run (``alloca``). Names that several units give to functions of
        their own are left out.
    """
    frames: dict[str, int | None] = {}
    twice = set()
    node = re.compile(r'node: \{ title: "(?:[^":]*:)?([^":]+)" label: "[^"]*\\n(\d+) bytes \(([a-z,]+)\)')
    for text in callgraphs:
        for name, size, kind in node.findall(text):
            if name in frames:
                twice.add(name)
            frames[name] = int(size) if kind == "static" else None
    return {name: size for name, size in frames.items() if name not in twice}
