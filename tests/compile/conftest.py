import shutil
import subprocess

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Keep results the same on every number of cores, and the cores free for other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def mount_disk(tmp_path):
    """Mount a file system of some KiB of its own."""
    disk = tmp_path / "disk"

    def mount(size, option="rw"):
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k,{option}", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            disk.rmdir()
            pytest.skip("no file system may be mounted here")
        return disk

    yield mount
    if disk.exists():
        subprocess.run(["umount", str(disk)], check=True)
