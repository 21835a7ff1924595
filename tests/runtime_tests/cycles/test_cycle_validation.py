"""Predicted against published cycles; and tables that aren't what they should be."""

import pytest

from thumbnet.runtime_tests.cycles.core_timing import TIMINGS
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.mcu.cycle_validation import validate_cycles

HISTOGRAM = {
    "network": "a",
    "core": "m4",
    "published_cycles": "100",
    "total_instructions": "40",
    "alu": "30",
    "ldr": "10",
    "it_folded": "0",
    "SIM_art_icache_dword_misses": "2",
    "SIM_art_dcache_dword_misses": "1",
}


def write_table(folder, **changes):
    row = {name: value for name, value in (HISTOGRAM | changes).items() if value is not None}
    table = folder / "cases.csv"
    table.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    return table


def test_the_stated_bands_are_those_of_the_published_cases(shared_data):
    cases = list(validate_cycles(shared_data / "cycles" / "histograms.csv"))
    for core, timing in TIMINGS.items():
        errors = [case.error for case in cases if case.board.core == core]
        if timing.band is None:
            assert not errors
            continue
        assert timing.band == (round(min(errors), 2), round(max(errors), 2))
        assert timing.cases >= len(errors)


def test_a_histogram_is_priced_with_its_waits(tmp_path):
    [case] = validate_cycles(write_table(tmp_path))
    assert case.predicted == 30 + 2 * 10 + 5 * 3
    assert case.error == pytest.approx(-0.35)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core": "m99"}, "core is 'm99'"),
        ({"board": "nucleo"}, "unknown board nucleo"),
        ({"published_cycles": "-5"}, "published_cycles is '-5'"),
        ({"published_cycles": "0"}, "published_cycles is '0'"),
        ({"published_cycles": "9" * 40}, "it must be a whole number"),
        ({"total_instructions": "41"}, "its classes have 40 instructions, total_instructions says 41"),
        ({"total_instructions": None}, "total_instructions is ''"),
        ({"SIM_art_dcache_dword_misses": None}, "SIM_art_dcache_dword_misses"),
        ({"core": None, "board": "mps3_an547"}, "give an ELF file"),
        ({"elf": "nothing.elf"}, "nothing.elf"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(SessionError, match=message) as caught:
        list(validate_cycles(write_table(tmp_path, **changes)))
    assert "\n" not in str(caught.value)
    assert "cases.csv: line 2" in str(caught.value) or "nothing.elf" in str(caught.value)


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")
def test_a_program_is_run_and_priced(tmp_path, build_program):
    elf = build_program("    movs r0, #100\n1:  ldr r1, [r7]\n    subs r0, r0, #1\n    bne 1b\n")
    table = tmp_path / "cases.csv"
    table.write_text(f"elf,board,published_cycles\n{elf.name},nucleo_l4r5zi,600\n")
    [case] = validate_cycles(table)
    # nop, movs; a hundred times a load of two, a subs of one and a branch of three, the last of one
    assert case.predicted == pytest.approx(2 + 100 * 6 - 2, abs=25)  # and the flash's few waits


@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")
def test_a_program_without_marks_is_refused(tmp_path, build_program):
    elf = build_program("    nop\n")
    elf.write_bytes(elf.read_bytes().replace(b"measure_begin", b"measure_xxxxx"))
    table = tmp_path / "cases.csv"
    table.write_text(f"elf,board,published_cycles\n{elf.name},nucleo_l4r5zi,600\n")
    with pytest.raises(SessionError, match="has no symbol measure_begin"):
        list(validate_cycles(table))
