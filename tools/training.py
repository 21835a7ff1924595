"""Trains a small MobileNet on the handwritten digits, the same way each time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from thumbnet.models.errors import TrainingError
from thumbnet.models.variants import BUNDLED, ModelSpec, build_model
from thumbnet.tools.digits import enlarge, make_preprocessing, split_digits

BATCH = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.1
#: Augmentation: shifts up to this part of the image to each side, turns in degrees, scale.
SHIFT, TURN, SCALE = 0.1, 12.0, 0.1


@dataclass(frozen=True)
class Training:
    """A trained network and how good it is.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode; its weights have been rounded to float16, as they are stored.
    correct, held_out : int
        Held-out digits classified right, and all of them.
    """

    module: nn.Module
    correct: int
    held_out: int

    @property
    def accuracy(self) -> float:
        """Part of the held-out digits classified right, 0 to 1."""
        return self.correct / self.held_out


def train_digits(
    spec: ModelSpec, epochs: int, seed: int, report: Callable[[int, float], None] = lambda epoch, loss: None
) -> Training:
    """Train a network of ten classes and gray images on the handwritten digits.

    One thread and deterministic kernels: the same seed gives the same weights on the same kind of processor, whatever
    its number of cores.

    Parameters
    ----------
    spec : ModelSpec
        One of the bundled networks.
    epochs : int
        Passes over the training digits.
    seed : int
        Of weights, order and augmentation.
    report : callable
        Called after each epoch with its number (from 1) and mean loss.

    Raises
    ------
    TrainingError
        The spec is not for gray images of ten classes, or the loss stopped being a number.
    """
    if (spec.classes, spec.input_channels) != (10, 1):
        names = ", ".join(bundled.name for bundled in BUNDLED)
        raise TrainingError(f"{spec.name}: only networks for the digits are trained here: {names}")
    preprocessing = make_preprocessing(spec.resolution)
    training, held_out = split_digits()
    with _reproducible(seed):
        images = preprocessing.to_float(enlarge(training, spec.resolution))
        labels = torch.from_numpy(training.labels)
        network = build_model(spec)
        _fit(network, images, labels, epochs, report)
        _round_weights(network.eval())
        answers = _classify(network, preprocessing.to_float(enlarge(held_out, spec.resolution)))
    return Training(network, int((answers == held_out.labels).sum()), len(held_out.labels))


def _fit(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, report: Callable[[int, float], None]
) -> None:
    network.train()
    batches = len(labels) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=epochs * batches)
    for epoch in range(1, epochs + 1):
        total = 0.0
        # The last, smaller batch is left out: its batch norm statistics would be worse than none.
        for chosen in torch.randperm(len(labels))[: batches * BATCH].reshape(batches, BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(_augment(images[chosen])), labels[chosen], label_smoothing=LABEL_SMOOTHING)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise TrainingError(f"the loss of epoch {epoch} is {total}; try another --seed")
        report(epoch, total / batches)


def _augment(images: torch.Tensor) -> torch.Tensor:
    """Shift, turn and scale each image of ``[N, C, H, W]`` by a little, with black around."""
    number = len(images)

    def draw(largest: float) -> torch.Tensor:
        return (torch.rand(number) * 2 - 1) * largest

    angle, scale = draw(math.radians(TURN)), 1 + draw(SCALE)
    # The grid runs from -1 to 1, so a part of the image is twice that.
    rows = [
        torch.stack([scale * angle.cos(), -scale * angle.sin(), draw(2 * SHIFT)], dim=1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), draw(2 * SHIFT)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _round_weights(network: nn.Module) -> None:
    """Round what a checkpoint stores as float16, so that the accuracy is that of the stored network."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())


def _classify(network: nn.Module, images: torch.Tensor) -> NDArray[np.int64]:
    with torch.no_grad():
        answers: NDArray[np.int64] = network(images).argmax(dim=1).numpy()
    return answers


@contextlib.contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Use one thread, deterministic kernels and a seed of our own inside the block, and undo it afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)
