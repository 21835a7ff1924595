"""`thumbnet compile --max-drop`, `--quantization-report` and the ways to int8, on the bundled digits."""

import json
import shutil

import pytest
from PIL import Image

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import CompileError
from thumbnet.compile.request import DEFAULT_OPTIONS, CompileOptions
from thumbnet.models.errors import ImageError
from thumbnet.models.image_folder import hash_image, list_images
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.weights import BUNDLED_CALIBRATION, BUNDLED_IMAGES
from thumbnet.targets.registry import get_board
from thumbnet.tools.accuracy_budget import METHODS, Accuracy, AccuracyTest, split_images
from thumbnet.tools.network import load_network, make_request, to_tensor
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.quantization_goal import QuantizationGoal, check_goal
from thumbnet.tools.rescaled_network import rescale_channels

BOARD = get_board("mps2_an386")
#: Its channels before ReLU6 mostly stay below 6.
MODEL = "mobilenet_v2_0.35_digits"


@pytest.fixture(scope="session")
def rescaled(tmp_path_factory):
    """Weights of the bundled network with channels scaled by up to a thousand, which compute the same on all images."""
    trained = load_network(NetworkFiles(MODEL))
    images = [
        to_tensor(trained, image)
        for folder in (BUNDLED_IMAGES, BUNDLED_CALIBRATION)
        for image in list_images(folder).images
    ]
    before = [trained.module(image) for image in images[::10]]
    assert rescale_channels(trained.module, images, 1000.0) > 500
    for image, wanted in zip(images[::10], before, strict=True):
        assert (trained.module(image) - wanted).abs().max() < 1e-3
    file = tmp_path_factory.mktemp("rescaled") / "rescaled.pt"
    write_checkpoint(file, trained.module, trained.spec, trained.preprocessing, {}, half=False)
    return file


@pytest.fixture
def folder_of(tmp_path):
    """Make a folder of some of the digits, without labels."""

    def make(number, name="images"):
        folder = tmp_path / name
        folder.mkdir()
        for image in list_images(BUNDLED_IMAGES).images[:number]:
            shutil.copy(image.path, folder)
        return folder

    return make


@pytest.mark.slow
def test_rescaled_channels_collapse_plainly_and_come_back(rescaled):
    files = NetworkFiles(MODEL, rescaled, calibration=BUNDLED_CALIBRATION)
    split = split_images(files, BUNDLED_IMAGES, 100, 10)
    test = AccuracyTest(files, BOARD, DEFAULT_OPTIONS, split)
    plain, *_, corrected = (test.run(method, **asked) for method, asked in METHODS.items() if method != "ranges")
    assert plain.accuracy is None or plain.accuracy.drop > 20
    assert corrected.accuracy.float_top1 >= 98
    assert corrected.accuracy.drop <= 1


@pytest.mark.slow
def test_the_first_method_that_keeps_it_is_compiled(thumbnet, rescaled, tmp_path):
    out, report = tmp_path / "out", tmp_path / "report.json"
    code, printed, err = thumbnet(
        *("compile", MODEL, "--weights", rescaled, "--calibration", BUNDLED_CALIBRATION, "--board", BOARD.name),
        *("--images", BUNDLED_IMAGES, "--max-drop", "1", "--quantization-report", report, "-o", out),
    )
    assert code == 0, err
    said = json.loads(report.read_text())
    tried = {trial["method"]: trial["accuracy"] for trial in said["tried"]}
    assert list(tried) == list(METHODS)[: len(tried)]
    assert said["method"] == list(tried)[-1] in ("equalized", "corrected")
    assert tried[said["method"]]["drop"] <= 1
    assert all(accuracy is None or accuracy["drop"] > 1 for accuracy in list(tried.values())[:-1])
    assert said["images"] == {"calibrated_on": 32, "tested_on": 100, "labelled": True}
    assert "top-1 on 100 images, 32 others to calibrate on" in printed
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["quantization"]["equalized"] is True
    # Every layer is there and has numbers.
    names = {layer["name"] for layer in said["layers"]}
    assert {"features.0.0", "pool", "classifier.1", "features.3"} <= names
    assert all(layer["range_method"] in {"minmax", "percentile", "mse"} for layer in said["layers"])
    assert min(layer["sqnr_alone_db"] for layer in said["layers"]) > 5


@pytest.mark.slow
def test_what_is_compiled_is_what_was_tested(rescaled, tmp_path):
    """The request of a trial is prepared already: compiling it, or asking for the same again, gives one network."""
    files = NetworkFiles(MODEL, rescaled, calibration=BUNDLED_CALIBRATION)
    split = split_images(files, BUNDLED_IMAGES, 2, 10)
    asked = METHODS["corrected"]
    trial = AccuracyTest(files, BOARD, DEFAULT_OPTIONS, split).run("corrected", **asked)
    one = compile_model(trial.prepared.request, tmp_path / "one")
    other = compile_model(make_request(files, BOARD, CompileOptions(**asked)), tmp_path / "other")
    for name in one.manifest["files"]:
        if name.endswith((".c", ".npz")):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    assert one.manifest["quantization"] == other.manifest["quantization"]


@pytest.mark.slow
def test_none_keeps_it_in_one_line(refused, tmp_path):
    out, report, black = tmp_path / "out", tmp_path / "report.json", tmp_path / "black"
    black.mkdir()
    # Ranges of a black image hold no other.
    Image.new("L", (8, 8)).save(black / "black.png")
    line = refused(
        *("compile", MODEL, "--calibration", black, "--board", BOARD.name, "--images", BUNDLED_IMAGES),
        *("--max-drop", "0.5", "--images-limit", "10", "--quantization-report", report, "-o", out),
    )
    assert "no method keeps int8 within 0.5 points of float on 10 images (1 others to calibrate on)" in line
    assert all(f"{method}: " in line for method in METHODS)
    assert not out.exists()
    assert not report.exists()


def test_no_image_is_calibrated_and_tested_on(folder_of):
    folder = folder_of(40)
    first = list_images(folder).images[0].path
    # The same content under another name.
    shutil.copy(first, folder / "zz_copy.png")
    files = NetworkFiles(MODEL, folder / "unread.pt")
    split = split_images(files, folder, 500, 10)
    calibrated, tested = ({hash_image(image) for image in part.images} for part in (split.calibration, split.test))
    assert len(split.calibration.images) == 10
    assert len(split.test.images) == 30
    assert not calibrated & tested


def test_calibration_images_of_their_own_are_left_out_of_the_test(folder_of):
    calibration, images = folder_of(8, "calibration"), folder_of(20)
    split = split_images(NetworkFiles(MODEL, calibration=calibration), images, 500, 10)
    assert (len(split.calibration.images), len(split.test.images)) == (8, 12)


@pytest.mark.parametrize("number", [1, 0])
def test_nothing_left_to_test_on(folder_of, number):
    folder = folder_of(number)
    with pytest.raises(ImageError, match="no other is left to test on" if number else "no images there"):
        split_images(NetworkFiles(MODEL, folder / "unread.pt"), folder, 500, 10)


def test_all_images_calibrated_on(folder_of):
    folder = folder_of(5)
    with pytest.raises(ImageError, match="no images left, all 5 are in"):
        split_images(NetworkFiles(MODEL, calibration=folder), folder, 500, 10)


def test_without_labels_agreement_counts():
    accuracy = Accuracy(200, None, None, 97.5)
    assert accuracy.drop == 2.5
    assert "no labels" in str(accuracy)
    assert Accuracy(200, 80.0, 81.0, 97.5).drop == -1.0


def test_a_folder_without_labels_says_so(thumbnet, folder_of, tmp_path):
    code, printed, err = thumbnet(
        *("compile", "mobilenet_v1_0.25_digits", "--board", BOARD.name, "--images", folder_of(20)),
        *("--max-drop", "5", "-o", tmp_path / "out"),
    )
    assert code == 0, err
    assert "agreement with float's top-1, for the images have no labels on 20 images" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--max-drop", "1"], "--max-drop is measured on images: give some"),
        (["--max-drop", "-1", "--images", "."], "-1 is not a number of points from 0 to 100"),
        (["--max-drop", "101", "--images", "."], "101 is not a number of points from 0 to 100"),
        (["--max-drop", "nan", "--images", "."], "nan is not a number of points from 0 to 100"),
        (["--images", "."], "--images is for --max-drop and --quantization-report"),
        (["--max-drop", "1", "--images", ".", "--ranges", "auto"], "--max-drop chooses the method itself"),
        (["--ranges", "most"], "'most' is not one of"),
        (["--quantization-report", "missing/report.json"], "missing"),
        (["--max-drop", "1", "--images", "missing"], "missing: no such folder of images"),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, options, line):
    found = refused(
        *("compile", "mobilenet_v1_0.25_digits", "--board", BOARD.name, *options),
        *("-o", tmp_path / "out"),
    )
    assert line in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("goal", [QuantizationGoal(report=True), QuantizationGoal(1.0, BUNDLED_IMAGES)])
def test_float32_has_no_accuracy_to_keep(goal):
    with pytest.raises(CompileError, match="are about int8"):
        check_goal(goal, CompileOptions(quantize="none"))


def test_options_are_in_the_help(thumbnet):
    _, out, _ = thumbnet("compile", "--help")
    options = ("--ranges", "--equalize", "--correct-biases", "--max-drop", "--images", "--quantization-report")
    assert all(option in out for option in options)
