"""Folders of images as people have them, given to the commands that take them."""

import json
import os
import shutil

import pytest

from thumbnet.compile.artifact import Artifact
from thumbnet.models.image_folder import hash_image, list_images
from thumbnet.models.weights import BUNDLED_CALIBRATION, BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

DIGITS = "mobilenet_v1_0.25_digits"
LOCAL = ("--device", "local")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """The digits network for this computer, calibrated on the bundled images."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ (apt install g++)")
    folder = tmp_path_factory.mktemp("local") / "digits"
    compile_network(NetworkFiles(DIGITS), get_board("host"), folder)
    return folder


@pytest.fixture
def by_class(tmp_path):
    """Two digits of each class in a folder a class, a broken one and what file managers leave among them."""
    folder = tmp_path / "by_class"
    for image in list_images(BUNDLED_IMAGES).images:
        target = folder / f"{image.class_index}_{image.class_name}"
        target.mkdir(parents=True, exist_ok=True)
        if len(list(target.iterdir())) < 2:
            shutil.copy(image.path, target)
    (folder / "3_three" / "broken.png").write_text("no image")
    os.mkfifo(folder / "3_three" / "pipe.png")
    (folder / "3_three" / "._x.png").write_bytes(b"\0\5\26\7")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "__MACOSX").mkdir()
    return folder


def test_a_folder_a_class_with_broken_images_is_tested(thumbnet, refused, artifact, by_class, tmp_path):
    arguments = ("test", artifact, *LOCAL, "--images", by_class)
    code, out, err = thumbnet(*arguments, "--json", tmp_path / "report.json")
    assert code == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == 20 and report["top1"] >= 0.9
    assert "20 images, 2 skipped" in out
    skipped = sorted(line.split(": ")[0].rpartition("/")[2] for line in report["skipped_images"])
    assert skipped == ["broken.png", "pipe.png"]
    assert "skipped" in err and "broken.png: not an image" in err and "._x.png" not in err
    assert "2 can't be read in all; leave --strict out" in refused(*arguments, "--strict")


def test_a_folder_a_class_with_broken_images_is_checked(thumbnet, refused, by_class, tmp_path):
    arguments = ("check", DIGITS, "--images", by_class)
    code, out, err = thumbnet(*arguments, "--json", tmp_path / "check.json")
    assert code == 0, err
    found = json.loads((tmp_path / "check.json").read_text())
    assert (found["images"], len(found["skipped_images"])) == (20, 2)
    assert found["settings"][0]["as_loaded"] and found["settings"][0]["top1"] >= 0.9
    assert "20 images, 2 skipped" in out and "broken.png: not an image" in err
    assert "leave --strict out" in refused(*arguments, "--strict")


def test_a_folder_a_class_with_broken_images_calibrates(thumbnet, refused, by_class, tmp_path):
    arguments = ("compile", DIGITS, "--board", "mps2_an386", "--calibration", by_class)
    code, out, err = thumbnet(*arguments, "-o", tmp_path / "a")
    assert code == 0, err
    assert "calibrated on 20 images, 2 skipped" in out and "broken.png: not an image" in err
    quantization = Artifact.load(tmp_path / "a").manifest["quantization"]
    assert (len(quantization["calibration_sha256"]), len(quantization["calibration_skipped"])) == (20, 2)
    assert "leave --strict out" in refused(*arguments, "--strict", "-o", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_limit_takes_digits_of_every_class(thumbnet, by_class, tmp_path):
    code, _, err = thumbnet("check", DIGITS, "--images", by_class, "--limit", 10, "--json", tmp_path / "check.json")
    assert code == 0, err
    # Every second one: of each class one but for the broken one's.
    assert json.loads((tmp_path / "check.json").read_text())["images"] >= 9


def test_images_calibrated_on_are_told_and_left_out(thumbnet, artifact, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(BUNDLED_IMAGES, mixed)
    calibrated = list_images(BUNDLED_CALIBRATION).images[:3]
    with (mixed / "labels.csv").open("a") as table:
        for image in calibrated:
            shutil.copy(image.path, mixed)
            table.write(f"{image.path.name},{image.class_index},\n")
    seen = set(Artifact.load(artifact).manifest["quantization"]["calibration_sha256"])
    count = sum(hash_image(image) in seen for image in calibrated)
    assert count > 0
    for options, images, told in (((), 103, count), (("--exclude", BUNDLED_CALIBRATION), 100, 0)):
        code, out, err = thumbnet(
            *("test", artifact, *LOCAL, "--images", mixed, *options, "--json", tmp_path / "report.json")
        )
        assert code == 0, err
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["images"], report["images_calibrated_on"]) == (images, told)
        assert (f"{count} of the images gave int8 its ranges" in out) == bool(told)


def test_bundled_networks_are_calibrated_on_bundled_images(thumbnet, refused, tmp_path):
    code, out, err = thumbnet("compile", DIGITS, "--board", "mps2_an386", "-o", tmp_path / "a")
    assert code == 0, err
    assert "calibrated on 32 bundled images" in out
    named = ("--calibration", BUNDLED_CALIBRATION)
    assert thumbnet("compile", DIGITS, "--board", "mps2_an386", *named, "-o", tmp_path / "b")[0] == 0
    files = [Artifact.load(tmp_path / name).manifest["files"] for name in "ab"]
    assert files[0] == files[1]
    # The same weights by name are anybody's.
    weights = ("--weights", BUNDLED_FOLDER / f"{DIGITS}.pt")
    assert "--calibration DIR" in refused("compile", DIGITS, *weights, "--board", "mps2_an386", "-o", tmp_path / "c")


@pytest.mark.slow
@pytest.mark.needs_tools("g++")
def test_a_bundled_network_is_tuned_without_calibration_images_of_one_s_own(thumbnet, tmp_path):
    code, out, err = thumbnet(
        *("tune", DIGITS, "--device", "local", "--trials", 2, "-o", tmp_path / "db", "--json", tmp_path / "tuned.json")
    )
    assert code == 0, err
    assert "ranges: calibrated on 32 bundled images" in " ".join(out.split())
    assert json.loads((tmp_path / "tuned.json").read_text())["ranges"] == "calibrated on 32 bundled images"


@pytest.mark.slow
@pytest.mark.needs_tools("g++")
def test_an_accuracy_far_from_the_published_one_points_to_check(thumbnet, shared_data, tmp_path):
    name = "mobilenet_v1_0.25_128"
    weights = shared_data / "models" / f"{name}_quant.tflite"
    for options, doubts in (((), False), (("--label-offset", "0"), True)):
        folder = tmp_path / f"a{doubts}"
        code, _, err = thumbnet("compile", name, "--weights", weights, "--board", "host", *options, "-o", folder)
        assert code == 0, err
        code, out, err = thumbnet("test", folder, *LOCAL, "--images", shared_data / "images", "--limit", 20)
        assert code in (0, 1), err
        assert ("`thumbnet check` compares them" in out) == doubts
