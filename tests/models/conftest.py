import pytest
import torch

from .state_dicts import make_torchvision


@pytest.fixture(autouse=True)
def _one_thread():
    """Keep results the same on every number of cores, and the cores free for other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    return make_torchvision()


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()
