import importlib

import click
import numpy as np
import pytest
import torch

from thumbnet.models.errors import TrainingError
from thumbnet.models.image_folder import list_images
from thumbnet.models.variants import get_spec
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES, load_model
from thumbnet.tools.digits import check_digits, enlarge, make_preprocessing, split_digits, write_digits
from thumbnet.tools.training import train_digits

# The package has the command of that name.
train = importlib.import_module("thumbnet.tools.commands.train")
NAME = "mobilenet_v1_0.25_digits"


def test_split_holds_a_fifth_out_and_shares_nothing():
    training, held_out = split_digits()
    assert (len(training.labels), len(held_out.labels)) == (1437, 360)
    assert not set(training.indices) & set(held_out.indices)
    # No picture is in both under another number either.
    assert not {image.tobytes() for image in training.pixels} & {image.tobytes() for image in held_out.pixels}
    assert np.bincount(held_out.labels).min() >= 34


def test_bundled_images_are_held_out_and_calibration_images_are_not():
    training, held_out = split_digits()
    for folder, part, number in ((BUNDLED_IMAGES, held_out, 100), (BUNDLED_FOLDER / "calibration", training, 40)):
        images = list_images(folder).images
        assert len(images) == number
        known = dict(zip(part.indices.tolist(), part.labels.tolist(), strict=True))
        assert all(known[int(image.path.name[:4])] == image.class_index for image in images)


def test_files_give_the_pixels_of_training(tmp_path):
    _, held_out = split_digits()
    assert write_digits(held_out, tmp_path, each=2) == 20
    positions = {int(index): position for position, index in enumerate(held_out.indices)}
    pixels = enlarge(held_out, 32)
    preprocessing = make_preprocessing(32)
    for image in list_images(tmp_path).images:
        position = positions[int(image.path.name[:4])]
        assert held_out.labels[position] == image.class_index
        np.testing.assert_array_equal(preprocessing.pixels(image.path), pixels[position])


@pytest.mark.parametrize("name", [NAME, "mobilenet_v2_0.35_digits"])
def test_bundled_weights_reach_97_percent_of_all_held_out_digits(name):
    _, held_out = split_digits()
    model = load_model(name)
    with torch.no_grad():
        logits = model.module(model.preprocessing.to_float(enlarge(held_out, 32)))
    assert (logits.argmax(1).numpy() == held_out.labels).mean() >= 0.97


def test_same_seed_same_weights_and_nothing_else_is_touched():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    losses = []
    first = train_digits(get_spec(NAME), 1, 3, lambda epoch, loss: losses.append((epoch, loss)))
    again = train_digits(get_spec(NAME), 1, 3)
    other = train_digits(get_spec(NAME), 1, 4)
    pairs = list(zip(first.module.parameters(), again.module.parameters(), other.module.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert [epoch for epoch, _ in losses] == [1]
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)
    assert torch.equal(state, torch.random.get_rng_state())


def test_other_networks_are_refused():
    with pytest.raises(TrainingError, match="only networks for the digits"):
        train_digits(get_spec("mobilenet_v1_0.25_128"), 1, 0)


def test_files_of_the_persons_are_never_replaced(tmp_path):
    _, held_out = split_digits()
    for name in ("labels.csv", "0021_1.png"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        for write in (check_digits, write_digits):
            with pytest.raises(click.ClickException, match=f"holds another {name}; move it, or name another folder"):
                write(held_out, folder, each=10)
        assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_text() == "mine"
    folder = tmp_path / "again"
    for _ in range(2):
        assert write_digits(held_out, folder, each=1) == 10
        (folder / "notes.txt").write_text("mine")
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [b"years of work", b"", None])
def test_what_is_no_checkpoint_of_ours_is_not_replaced(refused, tmp_path, content):
    file = tmp_path / "thesis.tex"
    if content is None:  # a state dict of the person's own
        torch.save(load_model(NAME).module.state_dict(), file)
        content = file.read_bytes()
    else:
        file.write_bytes(content)
    assert "exists and is no checkpoint of thumbnet's" in refused("train", "-o", file, "--epochs", 1)
    assert file.read_bytes() == content


def test_folders_in_the_way_are_told_before_the_training(refused, tmp_path):
    for option in ("--images", "--calibration-images"):
        folder = tmp_path / option
        folder.mkdir()
        (folder / "labels.csv").write_text("mine")
        line = refused("train", "-o", tmp_path / "x.pt", "--epochs", 10_000, option, folder)
        assert "holds another labels.csv" in line


def test_a_checkpoint_of_ours_is_replaced_through_a_link(thumbnet, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LEAST_ACCURACY", 0)
    (tmp_path / "link.pt").symlink_to("x.pt")
    for seed in (1, 2):
        assert thumbnet("train", "-o", tmp_path / "link.pt", "--epochs", 1, "--seed", seed)[0] == 0
    assert (tmp_path / "link.pt").is_symlink()
    assert load_model(NAME, tmp_path / "x.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.pt", "x.pt"]
