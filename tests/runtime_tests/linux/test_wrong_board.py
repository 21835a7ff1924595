"""A board that is not what it is said to be: another processor, an old C library, a server with files missing."""

import shutil
from pathlib import Path

import pytest
from tvm import relax, runtime

from thumbnet.models.weights import BUNDLED_FOLDER
from thumbnet.runtime_tests.errors import EmulatorMissingError, SessionError
from thumbnet.runtime_tests.linux import rpc_server_build, tvm_rpc_session
from thumbnet.runtime_tests.linux.board_faults import explain_loader
from thumbnet.runtime_tests.linux.board_kit import needed_versions
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.rpc_connection import connect_server
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

needs_emulator = pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
EMULATED = get_device("qemu_raspberry_pi_4")
#: What devices.toml says of a board that is in truth the emulated one.
SAID = Device("desk_pi", get_board("raspberry_pi_5"), "rpc", address="127.0.0.1:9190", key="pi5")


@pytest.fixture(scope="module")
def dot_product(tmp_path_factory):
    """A library for a Cortex-A76."""
    files = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=4)
    return compile_network(files, SAID.board, tmp_path_factory.mktemp("compiled") / "a76")


@pytest.fixture
def as_board(monkeypatch):
    """Sessions of kind rpc are led to an emulated Cortex-A72, whatever they are told."""
    with LinuxServer(EMULATED) as server:
        monkeypatch.setattr(
            tvm_rpc_session, "connect_device", lambda _: (connect_server(server.address), server.address)
        )
        yield server


@pytest.mark.emulated
@needs_emulator
def test_a_library_for_another_processor_is_refused_before_it_runs(dot_product, as_board):
    with TvmRpcSession(SAID) as session:
        says = (
            r"compiled for raspberry_pi_5 \(cortex-a76\), the processor of desk_pi has no dot product instructions and"
            r" so is no cortex-a76; name its real board in devices\.toml"
        )
        with pytest.raises(SessionError, match=says) as caught:
            session.load(dot_product)
        assert "\n" not in str(caught.value)
    assert as_board.process.poll() is None
    assert "signal 4" not in as_board.last_words()


@pytest.mark.emulated
@needs_emulator
def test_a_library_refuses_a_processor_that_lacks_its_instructions(dot_product, as_board):
    """In any program with a TVM runtime: an error, no illegal instruction."""
    session = connect_server(as_board.address)
    session.upload(str(dot_product.folder / f"{dot_product.name}.so"))
    library = session.load_module(f"{dot_product.name}.so")
    machine = relax.VirtualMachine(library, session.cpu())
    image = runtime.tensor(dot_product.golden()[0][:1], session.cpu())
    for _ in range(2):
        with pytest.raises(Exception, match="compiled for a processor with dot product instructions, this one"):
            machine["main"](image)


@pytest.mark.emulated
@needs_emulator
def test_the_processor_it_was_compiled_for_runs_it(dot_product):
    with TvmRpcSession(get_device("qemu_raspberry_pi_5")) as session:
        session.load(dot_product)
        inputs, outputs = dot_product.golden()
        assert session.run(inputs[0]).tobytes() == outputs[0].tobytes()


@pytest.mark.emulated
@needs_emulator
def test_a_c_library_that_is_too_old_is_one_line(dot_product, as_board, monkeypatch, tmp_path):
    """What a server that somebody else started says of the instrument."""
    real = rpc_server_build.build_instrument(EMULATED.board)
    needed = needed_versions([real])["GLIBC"]
    new = tmp_path / real.name
    new.write_bytes(real.read_bytes().replace(f"GLIBC_{needed}\0".encode(), b"GLIBC_2.99\0"))
    monkeypatch.setattr(tvm_rpc_session, "build_instrument", lambda _: new)
    with TvmRpcSession(SAID) as session:
        says = (
            rf"desk_pi: loading the network failed: {real.name} needs glibc 2\.99, the device's is older \(`ldd"
            r" --version` there says which it has\); update its system$"
        )
        with pytest.raises(SessionError, match=says):
            session.load(dot_product)


@pytest.mark.needs_tools("g++", "aarch64-linux-gnu-g++")
def test_a_board_of_another_architecture_is_one_line(desk, dot_product):
    if Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.skip("this computer runs AArch64's programs")
    said = Device("desk", SAID.board, "rpc", address=desk.device().address, key="desk")
    with TvmRpcSession(said) as session, pytest.raises(SessionError, match="is no library for its processor") as caught:
        session.load(dot_product)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "/lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by /tmp/x/libtvm_ffi.so)",
            "libtvm_ffi.so needs the libstdc++ of GLIBCXX 3.4.30, the device's is older",
        ),
        (
            "error while loading shared libraries: libtvm_ffi.so: cannot open shared object file: No such file",
            "libtvm_ffi.so is missing on the device",
        ),
        ("/tmp/a/net.so: wrong ELF class: ELFCLASS64", "net.so is missing on the device, or is no library for its"),
        ("Check failed: (code == RPCCode::kReturn) is false: code=kShutdown", None),
        ("", None),
    ],
)
def test_words_of_a_loader(words, says):
    found = explain_loader(words)
    assert found is None if says is None else found.startswith(says)


@pytest.mark.emulated
@needs_emulator
def test_a_runtime_with_a_file_missing_is_one_line(monkeypatch, tmp_path):
    """Of the cache, whose server was built when it was whole."""
    whole = rpc_server_build._aarch64_runtime(lambda _: None)
    broken = tmp_path / "thumbnet" / "runtime" / whole.name
    shutil.copytree(whole, broken)
    (broken / "libtvm_ffi.so").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    says = rf"{broken}/libtvm_ffi\.so of TVM's runtime is missing; delete the folder {broken}, and it is fetched again$"
    with pytest.raises(EmulatorMissingError, match=says):
        TvmRpcSession(EMULATED)
