"""Finds how a network was meant to be run: the neighbouring conventions under which its answers fit the labels best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import ImageError
from thumbnet.models.image_folder import LabelledImage
from thumbnet.models.preprocessing import IMAGENET_CROP, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from thumbnet.models.variants import ModelSpec
from thumbnet.models.weights import TrainedModel
from thumbnet.tools.network import load_network
from thumbnet.tools.network_options import NetworkFiles

#: Mean and standard deviation of a pixel of 0 to 255, as networks are trained with.
SCALINGS: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = (
    ((0.0,), (255.0,)),  # 0 to 1
    ((127.5,), (127.5,)),  # -1 to 1: Keras, Inception
    ((128.0,), (128.0,)),  # TensorFlow's hosted networks
    (IMAGENET_MEAN, IMAGENET_STD),  # torchvision, timm
    ((0.0,), (1.0,)),  # no scaling
)
EPSILONS = (1e-3, 1e-5)
BATCH = 32
#: Of one best setting among so many being so far ahead by chance.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Setting:
    """One way to run a network's weights on images."""

    conventions: Conventions
    preprocessing: Preprocessing

    @classmethod
    def of(cls, trained: TrainedModel) -> Setting:
        """Return how a network is loaded."""
        spec = trained.spec
        assert isinstance(spec, ModelSpec)
        return cls(Conventions(spec.padding, spec.bn_epsilon, spec.activation), trained.preprocessing)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"preprocessing": self.preprocessing.as_json(), "conventions": vars(self.conventions)}

    def options_from(self, other: Setting) -> str:
        """Return the options that make this of another setting."""
        ours, theirs = ({**vars(setting.conventions), **vars(setting.preprocessing)} for setting in (self, other))
        changed = {name for name, value in ours.items() if value != theirs[name]}
        if changed & {"mean", "std"}:
            changed |= {"mean", "std"}
            ours |= {name: _spell_colours(ours[name]) for name in ("mean", "std")}
        return " ".join(f"--{name.replace('_', '-')} {ours[name]}" for name in ours if name in changed)


@dataclass(frozen=True, eq=False)
class Trial:
    """How a setting did.

    Parameters
    ----------
    setting : Setting
        What was tried.
    correct : ndarray
        bool ``[images]``: which were classified right.
    """

    setting: Setting
    correct: NDArray[np.bool_]

    @property
    def top1(self) -> float:
        """Part of the images classified right."""
        return float(self.correct.mean())

    def lead_over(self, other: Trial) -> tuple[float, float]:
        """Return by how much top-1 is above the other's, and the standard error of that difference of paired images."""
        difference = self.correct.astype(int) - other.correct.astype(int)
        return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))

    def chance_against(self, other: Trial) -> float:
        """Return how probable such a lead is among equals: the exact sign test on images only one of them has right."""
        ours, theirs = int((self.correct & ~other.correct).sum()), int((other.correct & ~self.correct).sum())
        total = ours + theirs
        chance: float = sum(math.comb(total, count) for count in range(ours, total + 1)) / 2**total
        return chance


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    trials : tuple of Trial
        All settings tried, best first; of equals the one nearest to how the network is loaded.
    loaded : Trial
        The network as its file and the person say.
    """

    trials: tuple[Trial, ...]
    loaded: Trial

    @property
    def best(self) -> Trial:
        """The setting that fits the labels best."""
        return self.trials[0]

    def is_beyond_chance(self, trial: Trial) -> bool:
        """Tell whether the best's lead over a trial is larger than the best of as many equals would have."""
        return self.best.chance_against(trial) * (len(self.trials) - 1) < SIGNIFICANCE


def search_conventions(
    files: NetworkFiles, images: Sequence[LabelledImage], on_trial: Callable[[int], None] = lambda _: None
) -> SearchResult:
    """Try the settings around the one a network is loaded with.

    Everything about the network that its file leaves open is tried with every scaling of pixels, then every way to crop
    and resize with the best of these, and again from there until nothing is better.

    Parameters
    ----------
    files : NetworkFiles
        The network, and where to start.
    images : sequence of LabelledImage
        All with labels.
    on_trial : callable
        Called with the number of settings tried so far.

    Raises
    ------
    ModelError
        The network can't be loaded, an image has no label, or a label is beyond the network's classes.
    """
    search = _Search(files, images, on_trial)
    best = loaded = search.loaded
    while True:
        before = best
        for neighbours in (search.other_scalings, search.other_geometries):
            for setting in neighbours(best.setting):
                search.run(setting)
            best = search.best()
        if best is before:
            break
    trials = sorted(search.trials.values(), key=lambda trial: -int(trial.correct.sum()))
    return SearchResult(tuple(trials), loaded)


class _Search:
    """Runs each setting once; networks, pixels and answers are kept for the next."""

    def __init__(self, files: NetworkFiles, images: Sequence[LabelledImage], on_trial: Callable[[int], None]) -> None:
        self.trials: dict[Setting, Trial] = {}
        self._files, self._images, self._on_trial = files, images, on_trial
        self._networks: dict[Conventions, nn.Module] = {}
        self._pixels: dict[Preprocessing, NDArray[np.uint8]] = {}
        self._answers: dict[tuple[Conventions, Preprocessing], NDArray[np.int64]] = {}
        self._trained = load_network(files)
        self._labels = _read_labels(images, self._trained.spec.classes)
        self.loaded = self.run(Setting.of(self._trained))

    def best(self) -> Trial:
        return max(self.trials.values(), key=lambda trial: int(trial.correct.sum()))

    def run(self, setting: Setting) -> Trial:
        if setting not in self.trials:
            correct = self._answer(setting) == self._labels + setting.preprocessing.label_offset
            self.trials[setting] = Trial(setting, correct)
            self._on_trial(len(self.trials))
        return self.trials[setting]

    def other_scalings(self, around: Setting) -> Iterator[Setting]:
        preprocessing = around.preprocessing
        scalings = [(preprocessing.mean, preprocessing.std)]
        for mean, std in SCALINGS:
            if len(mean) in (1, preprocessing.channels):
                repeat = preprocessing.channels // len(mean)
                scalings.append((mean * repeat, std * repeat))
        offsets = [offset for offset in (0, 1) if self._labels.max() + offset < self._trained.spec.classes]
        for conventions, (mean, std), offset in itertools.product(
            _list_conventions(around.conventions, self._trained), scalings, offsets
        ):
            yield Setting(conventions, replace(preprocessing, mean=mean, std=std, label_offset=offset))

    def other_geometries(self, around: Setting) -> Iterator[Setting]:
        preprocessing = around.preprocessing
        for mode, crop in itertools.product(
            ("squash", "short-side"), dict.fromkeys((preprocessing.crop_fraction, IMAGENET_CROP, 1.0))
        ):
            yield replace(around, preprocessing=replace(preprocessing, resize_mode=mode, crop_fraction=crop))

    def _answer(self, setting: Setting) -> NDArray[np.int64]:
        preprocessing = setting.preprocessing
        key = (setting.conventions, replace(preprocessing, label_offset=0))
        if key not in self._answers:
            network, pixels = self._network(setting.conventions), self._read_pixels(preprocessing)
            with torch.no_grad():
                answers = [
                    network(preprocessing.to_float(pixels[start : start + BATCH])).argmax(dim=1).numpy()
                    for start in range(0, len(pixels), BATCH)
                ]
            self._answers[key] = np.concatenate(answers)
        return self._answers[key]

    def _network(self, conventions: Conventions) -> nn.Module:
        if conventions not in self._networks:
            said = {name: value for name, value in vars(conventions).items() if name not in self._trained.stated}
            self._networks[conventions] = load_network(replace(self._files, **said)).module
        return self._networks[conventions]

    def _read_pixels(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        channels = preprocessing.channels
        key = replace(preprocessing, mean=(0.0,) * channels, std=(1.0,) * channels, label_offset=0)
        if key not in self._pixels:
            self._pixels[key] = np.stack([key.pixels(image.path) for image in self._images])
        return self._pixels[key]


def _list_conventions(around: Conventions, trained: TrainedModel) -> list[Conventions]:
    """Return all combinations of what the file leaves open, those around first."""
    values: dict[str, Sequence[Any]] = {
        "padding": ("same", "symmetric"),
        "bn_epsilon": EPSILONS,
        "activation": ("relu6", "relu"),
    }
    choices = [
        [own] if name in trained.stated else dict.fromkeys((own, *values[name])) for name, own in vars(around).items()
    ]
    return [Conventions(*combination) for combination in itertools.product(*choices)]


def _read_labels(images: Sequence[LabelledImage], classes: int) -> NDArray[np.int64]:
    labels = [image.class_index for image in images if image.class_index is not None]
    if len(labels) < len(images):
        raise ImageError(
            f"{images[0].path.parent}: {len(images) - len(labels)} of {len(images)} images have no label; give a"
            " labels.csv (file,class_index), or a folder a class"
        )
    if max(labels) >= classes:
        raise ImageError(
            f"{images[0].path.parent}: the labels go up to class {max(labels)}, the network has {classes} classes;"
            " give images of its task"
        )
    return np.array(labels)


def _spell_colours(pixels: Sequence[float]) -> str:
    words = [f"{value / 255:.9g}" for value in pixels]
    return words[0] if len(set(words)) == 1 else ",".join(words)
