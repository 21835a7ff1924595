import pytest

from thumbnet.targets.devices import get_device
from thumbnet.targets.errors import QuarantineError
from thumbnet.targets.quarantine import read_quarantine

GOOD = """
[[quarantine]]
device = "qemu_mps2_an386"
reason = "one"

[[quarantine]]
board = "mps2_an500"
reason = "all"
"""


def _read(folder, text):
    path = folder / "quarantine.toml"
    path.write_text(text)
    return read_quarantine(path)


def test_devices_and_boards_are_left_out_with_the_reason(tmp_path):
    found = _read(tmp_path, GOOD)
    names = ("qemu_mps2_an386", "qemu_mps2_an500", "qemu_mps2_an505")
    assert [found.reason_for(get_device(name)) for name in names] == ["one", "all", None]
    assert _read(tmp_path, "").reason_for(get_device(names[0])) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[quarantine", "not TOML"),
        ("[quarantine]\ndevice = 'a'\n", "must be a list"),
        ("[[quarantined]]\n", "unknown table or field 'quarantined'"),
        ("quarantine = [3]\n", "entry 1: must be a table"),
        ("[[quarantine]]\ndevice = 'a'\n", "entry 1: reason is missing"),
        ("[[quarantine]]\nreason = 'a'\n", "must name either a device or a board"),
        ("[[quarantine]]\nreason = 'a'\ndevice = 'a'\nboard = 'b'\n", "must name either a device or a board"),
        ("[[quarantine]]\ndevise = 'a'\n", "unknown field 'devise', did you mean device"),
        ("[[quarantine]]\ndevice = 3\nreason = 'a'\n", "device must be printable text"),
        ("[[quarantine]]\ndevice = 'a'\nreason = ' '\n", "reason must be printable text"),
        ('[[quarantine]]\ndevice = "a"\nreason = "a\\u0000"\n', "reason must be printable text"),
        (GOOD + "[[quarantine]]\nboard = 'mps2_an500'\nreason = 'again'\n", "entry 3: board 'mps2_an500' is there"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(QuarantineError, match=message) as caught:
        _read(tmp_path, text)
    assert str(tmp_path / "quarantine.toml") in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(QuarantineError, match=r"none.toml: can't be read \(No such file"):
        read_quarantine(tmp_path / "none.toml")
