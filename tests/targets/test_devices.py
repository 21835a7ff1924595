import os

import pytest

from thumbnet.targets.devices import get_device, list_devices
from thumbnet.targets.errors import DeviceError

GOOD = """
[devices.my_nucleo]
board = "nucleo_l4r5zi"
kind = "serial"
port = "/dev/ttyACM0"
baud = 921600

[devices.my_other_nucleo]
board = "nucleo_l4r5zi"
kind = "serial"
serial_number = "066CFF"
interface = 2
flash = "pyocd"
probe = "066CFF"

[devices.my_pi]
board = "raspberry_pi_4"
kind = "rpc"
tracker = "localhost:9190"
key = "pi4"

[devices.my_old_pi]
board = "raspberry_pi_2"
kind = "tcp"
address = "10.0.0.3:7355"
"""


@pytest.fixture
def write_toml(tmp_path):
    def write(text):
        path = tmp_path / "devices.toml"
        path.write_text(text)
        return path

    return write


def test_built_in_devices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = {device.name: (device.board.name, device.kind) for device in list_devices()}
    assert kinds["local"] == ("host", "local")
    for board in ("mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547", "raspberry_pi_2"):
        assert kinds[f"qemu_{board}"] == (board, "emulated")
    assert len(kinds) == 12


def test_reads_the_users_devices(write_toml, monkeypatch):
    path = write_toml(GOOD)
    serial = get_device("my_nucleo", path)
    assert (serial.kind, serial.address, serial.baud) == ("serial", "/dev/ttyACM0", 921600)
    other = get_device("my_other_nucleo", path)
    assert (other.address, other.serial_number, other.interface) == ("", "066CFF", 2)
    assert (other.flash.tool, other.flash.probe) == ("pyocd", "066CFF")
    assert (serial.place, other.place) == ("/dev/ttyACM0", "USB 066CFF interface 2")
    rpc = get_device("my_pi", path)
    assert (rpc.kind, rpc.address, rpc.key) == ("rpc", "localhost:9190", "pi4")
    tcp = get_device("my_old_pi", path)
    assert (tcp.kind, tcp.address) == ("tcp", "10.0.0.3:7355")
    monkeypatch.chdir(path.parent)
    assert get_device("my_pi") == rpc


def test_an_unknown_device_names_the_nearest(write_toml):
    with pytest.raises(DeviceError, match=r"unknown device my_nuclo, did you mean my_nucleo\?; known: .*local"):
        get_device("my_nuclo", write_toml(GOOD))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[devices.a", "not TOML"),
        (GOOD + '[devices.my_pi]\nboard = "x"\n', "not TOML"),
        ("[device.a]\n", "unknown table or field device"),
        ("devices = 3\n", "devices must be tables"),
        ("[devices]\na = 1\n", "device a: must be a table"),
        ('[devices.a]\nboard = "mps2_an386"\n', "device a: kind is None; known: serial, rpc, tcp, emulated"),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "usb"\n', "kind is 'usb'"),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "serial"\n', "port is missing"),
        *(
            (f'[devices.a]\nboard = "mps2_an386"\nkind = "serial"\n{fields}\n', message)
            for fields, message in (
                ('port = "p"\nserial_number = "s"', "leave serial_number and interface out, or port"),
                ('port = "p"\ninterface = 0', "leave serial_number and interface out, or port"),
                ("interface = 0", "port is missing, or serial_number"),
                ("serial_number = 66", "serial_number is 66, it must be text"),
                ('serial_number = ""', "1 to 255 printable characters"),
                ('port = "p"\nprobe = "A"', "flash is missing"),
                ('port = "p"\nflash = "uf2:X"\nprobe = "A"', "is for pyocd and openocd; leave it out"),
                ('port = "p"\nflash = "openocd:x.cfg"\nprobe = "A]; exit"', "has letters, digits, and some of"),
                ('serial_number = "s"\ninterface = -1', "interface is -1, it must be 0 to 255"),
                ('serial_number = "s"\ninterface = "0"', "interface is '0', it must be a whole number"),
            )
        ),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "serial"\nport = 3\n', "port is 3, it must be text"),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\nbuad = 3\n', "field buad, did you mean baud"),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\nbaud = -1\n', "baud is -1"),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\nbaud = true\n', "a whole number"),
        ('[devices.a]\nboard = "mps2_an38"\nkind = "serial"\nport = "p"\n', "unknown board mps2_an38, did you mean"),
        (
            '[devices.a]\nboard = "raspberry_pi_4"\nkind = "serial"\nport = "p"\n',
            'tracker; use kind = "rpc"',
        ),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "rpc"\ntracker = "h:1"\nkey = "k"\n', "is a microcontroller"),
        ('[devices.a]\nboard = "raspberry_pi_4"\nkind = "rpc"\ntracker = "h"\nkey = "k"\n', "must be HOST:PORT"),
        ('[devices.a]\nboard = "raspberry_pi_4"\nkind = "tcp"\naddress = "h:1"\n', 'tracker; use kind = "rpc"'),
        ('[devices.a]\nboard = "raspberry_pi_2"\nkind = "rpc"\ntracker = "h:1"\nkey = "k"\n', 'use kind = "tcp"'),
        ('[devices.a]\nboard = "raspberry_pi_2"\nkind = "serial"\nport = "p"\n', 'use kind = "tcp"'),
        ('[devices.a]\nboard = "mps2_an386"\nkind = "tcp"\naddress = "h:1"\n', 'use kind = "serial"'),
        (
            '[devices.a]\nboard = "raspberry_pi_2"\nkind = "tcp"\naddress = "h"\n',
            "address is 'h', it must be HOST:PORT",
        ),
        ('[devices.a]\nboard = "raspberry_pi_2"\nkind = "tcp"\n', "address is missing"),
        *(
            (
                f'[devices.a]\nboard = "raspberry_pi_4"\nkind = "rpc"\ntracker = "{tracker}"\nkey = "k"\n',
                "must be HOST:PORT",
            )
            for tracker in (
                *("h:0", "h:65536", "h:-1", "h:\u0663", "h:9190 ", ":9190", "a..b:1", ".a:1", "a b:1", "a/b:1", "-a:1"),
                *(f"{'a' * 64}:1", "\u00fc" * 60 + ":1", "h:" + "9" * 200, "user@h:1"),
            )
        ),
        *(
            (f'[devices.a]\nboard = "mps2_an386"\nkind = "serial"\nport = {port}\n', "1 to 255 printable characters")
            for port in ('""', r'"a\u0000b"', r'"a\nb"', f'"{"a" * 5000}"')
        ),
        *(
            (f'[devices.a]\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\nbaud = {baud}\n', message)
            for baud, message in (
                *(("0", "1 to 100,000,000"), ("1" + "0" * 30, "1 to 100,000,000"), ("1.5", "a whole number")),
                *(("nan", "a whole number"), ("[1]", "a whole number"), ("9" * 5000, "not TOML"), ('"1"', "a whole")),
            )
        ),
        (r'[devices."a\nb"]' + '\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\n', "a name is 1 to 255"),
        (f'[devices.{"a" * 5000}]\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\n', "a name is 1 to 255"),
        ("a = " + "[" * 20_000 + "]" * 20_000, "not TOML"),
        ("#" * (2 << 20), "larger than 1,048,576 bytes"),
        ('[devices.local]\nboard = "mps2_an386"\nkind = "serial"\nport = "p"\n', "name of a built-in device"),
    ],
)
def test_a_wrong_file_is_one_clear_line(text, message, write_toml):
    path = write_toml(text)
    with pytest.raises(DeviceError, match=message) as caught:
        list_devices(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "tracker", ["localhost:1", "10.0.0.1:65535", "[::1]:9190", "::1:9190", "pi-4.local.:1", "my_pi:1"]
)
def test_a_tracker_may_be_anywhere(write_toml, tracker):
    path = write_toml(GOOD.replace("localhost:9190", tracker))
    assert get_device("my_pi", path).address == tracker


@pytest.mark.parametrize("name", ["/dev/zero", "fifo", "."])
def test_only_a_regular_file_is_read(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DeviceError, match="no regular file"):
        list_devices(tmp_path / name)


def test_a_missing_or_binary_file_is_one_clear_line(tmp_path):
    with pytest.raises(DeviceError, match="No such file"):
        list_devices(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeviceError, match="not text"):
        list_devices(tmp_path / "binary.toml")
