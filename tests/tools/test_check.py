"""`thumbnet check` finds how the bundled network was trained, from its bare weights and labelled digits."""

import json
import re

import numpy as np
import pytest
import torch

from thumbnet.models.conventions import Conventions
from thumbnet.models.image_folder import list_images
from thumbnet.models.preprocessing import hosted_preprocessing, unit_preprocessing
from thumbnet.models.weights import BUNDLED_IMAGES, load_model
from thumbnet.tools.convention_search import Setting, Trial, search_conventions
from thumbnet.tools.network_options import NetworkFiles

DIGITS = "mobilenet_v1_0.25_digits"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The trained network's weights and nothing else: its conventions are lost."""
    path = tmp_path_factory.mktemp("bare") / "digits.pth"
    torch.save(load_model(DIGITS).module.state_dict(), path)
    return path


def test_lost_preprocessing_is_found_and_its_options_work(thumbnet, bare, tmp_path):
    arguments = ("check", DIGITS, "--weights", bare, "--images", BUNDLED_IMAGES, "--json", tmp_path / "check.json")
    code, out, err = thumbnet(*arguments)
    assert code == 0, err
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["beyond_sampling_error"] is True
    assert "beyond the sampling error of 100 images" in out
    loaded = next(setting for setting in found["settings"] if setting["as_loaded"])
    assert found["settings"][0]["top1"] >= 0.97 and loaded["top1"] < 0.9
    assert found["lead"] == pytest.approx(found["settings"][0]["top1"] - loaded["top1"])
    tops = [setting["top1"] for setting in found["settings"]]
    assert tops == sorted(tops, reverse=True)
    options = re.search(r"The best's options: (.+)\.", out.replace("\n", " "))[1]
    assert options == found["options"]
    # Of digits of 8 x 8 pixels a crop of 0.875 takes nothing off.
    assert options == "--mean 0 --std 1"
    # With these it is loaded as it was trained.
    code, out, err = thumbnet(*arguments, *options.split())
    assert code == 0, err
    again = json.loads((tmp_path / "check.json").read_text())
    assert again["settings"][0]["as_loaded"] is True
    assert again["settings"][0]["top1"] == found["settings"][0]["top1"]
    assert again["options"] == options
    assert "fits the labels best as it is loaded now" in out.replace("\n", " ")


def test_lost_conventions_of_the_network_are_found(bare):
    wrong = NetworkFiles(DIGITS, bare, padding="symmetric", bn_epsilon=1e-5, activation="relu")
    images = list_images(BUNDLED_IMAGES).images
    result = search_conventions(wrong, images)
    assert result.best.top1 >= 0.97
    assert result.best.setting.conventions.padding == "same"
    assert result.loaded.top1 < 0.9 and result.is_beyond_chance(result.loaded)
    tried = {trial.setting.conventions for trial in result.trials}
    assert len(tried) == 8
    assert {trial.setting.preprocessing.resize_mode for trial in result.trials} == {"squash", "short-side"}


def test_what_the_file_says_of_the_network_is_not_tried(tmp_path):
    result = search_conventions(NetworkFiles(DIGITS), list_images(BUNDLED_IMAGES).images[:20])
    assert len({trial.setting.conventions for trial in result.trials}) == 1
    assert result.best is result.loaded


def test_labels_may_be_off_by_the_background(bare, tmp_path):
    """Images of the classes 1 to 9, labelled as a network with a background would have them."""
    lines = [
        f"{image.path},{image.class_index - 1}" for image in list_images(BUNDLED_IMAGES).images if image.class_index
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    result = search_conventions(NetworkFiles(DIGITS), list_images(tmp_path).images)
    assert result.best.setting.preprocessing.label_offset == 1
    assert result.best.top1 >= 0.97 and result.is_beyond_chance(result.loaded)
    assert result.best.setting.options_from(result.loaded.setting) == "--label-offset 1"


def _trial(correct):
    return Trial(Setting(Conventions(), unit_preprocessing(32, 1)), np.array(correct, bool))


def test_a_lead_on_few_images_is_not_beyond_chance():
    good, bad = _trial([1] * 5 + [1]), _trial([0] * 5 + [1])
    assert good.lead_over(bad) == (pytest.approx(5 / 6), pytest.approx(np.std([1] * 5 + [0]) / np.sqrt(6)))
    # Five coins that all fall on one side.
    assert good.chance_against(bad) == 1 / 32
    assert bad.chance_against(good) == 1
    assert good.chance_against(good) == 1
    assert _trial([1] * 40).chance_against(_trial([0] * 40)) < 1e-9


def test_options_tell_one_setting_from_another():
    hosted = Setting(Conventions("same", 1e-3, "relu6"), hosted_preprocessing(96, 1001))
    unit = Setting(Conventions("symmetric", 1e-5, "relu6"), unit_preprocessing(96, 3))
    assert unit.options_from(unit) == ""
    options = dict(re.findall(r"--(\S+) (\S+)", unit.options_from(hosted)))
    assert options == {
        **{"padding": "symmetric", "bn-epsilon": "1e-05", "crop-fraction": "1.0", "mean": "0", "std": "1"},
        "label-offset": "0",
    }
    assert "--mean 0.501960784 --std 0.501960784" in hosted.options_from(unit)


def test_images_without_labels_or_of_another_task(refused, bare, tmp_path):
    image = next(BUNDLED_IMAGES.glob("*.png"))
    (tmp_path / "a.png").write_bytes(image.read_bytes())
    arguments = ("check", DIGITS, "--weights", bare, "--images", tmp_path)
    assert "1 of 1 images have no label; give a labels.csv" in refused(*arguments)
    (tmp_path / "labels.csv").write_text("a.png,10\n")
    assert "the labels go up to class 10, the network has 10 classes" in refused(*arguments)
