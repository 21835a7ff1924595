import os

import pytest
from PIL import Image

from thumbnet.models.errors import ImageError
from thumbnet.models.image_folder import list_images, load_images, spread


@pytest.fixture
def image(tmp_path):
    """Return a function that makes an image at a path inside the temporary folder."""

    def make(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(path)
        return path

    return make


def _labels(images):
    return [(image.path.name, image.class_index, image.class_name) for image in images]


def test_labels_are_read_in_the_order_of_the_table(image, tmp_path):
    image("a.png"), image("b.png")
    (tmp_path / "labels.csv").write_text('file,class_index,class_name\nb.png,5,"ray, electric"\na.png,0,tench\n')
    listed = list_images(tmp_path)
    assert _labels(listed.images) == [("b.png", 5, "ray, electric"), ("a.png", 0, "tench")]
    assert listed.skipped == ()


@pytest.mark.parametrize(
    "table",
    [
        "a.png,3\nb.png,4\n",
        "a.png,3,cat\nb.png,4,dog\n",
        "\ufefffile,class_index\na.png,3\nb.png,4\n",
        "\ufeffa.png,3\r\nb.png,4\r\n",
        "class_index,file\n3,a.png\n4,b.png\n",
        "file,class_index\n\na.png, 3\nb.png,4",
    ],
    ids=["no header", "no header, names", "byte order mark", "both", "other order", "blank line and spaces"],
)
def test_tables_as_spreadsheets_write_them(image, tmp_path, table):
    image("a.png"), image("b.png")
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    assert [(path, index) for path, index, _ in _labels(list_images(tmp_path).images)] == [("a.png", 3), ("b.png", 4)]


def test_a_line_of_the_table_may_name_a_folder(image, tmp_path):
    image("n02/x.jpg"), image("n02/deeper/y.jpg"), image("n01/z.jpg")
    (tmp_path / "labels.csv").write_text("n02,7,snake\nn01,3,bird\n")
    assert _labels(list_images(tmp_path).images) == [
        *[("y.jpg", 7, "snake"), ("x.jpg", 7, "snake")],
        ("z.jpg", 3, "bird"),
    ]


def test_folder_without_labels(image, tmp_path):
    image("b.png"), image("a.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "thumbnails").mkdir()
    assert _labels(list_images(tmp_path).images) == [("a.JPG", None, None), ("b.png", None, None)]


def test_a_folder_a_class_is_numbered_in_sorted_order(image, tmp_path):
    image("dog/2.jpg"), image("dog/1.jpg"), image("cat/sub/x.png"), image("Zebra/z.png")
    (tmp_path / "empty").mkdir()
    # Capital letters come first, and empty folders count: as in torchvision.
    assert _labels(list_images(tmp_path, classes=4).images) == [
        ("z.png", 0, "Zebra"),
        ("x.png", 1, "cat"),
        ("1.jpg", 2, "dog"),
        ("2.jpg", 2, "dog"),
    ]


def test_folders_of_numbers_are_the_classes_they_say(image, tmp_path):
    image("10/a.png"), image("2/b.png"), image("007/c.png")
    assert [index for _, index, _ in _labels(list_images(tmp_path, classes=1000).images)] == [7, 10, 2]


def test_sorted_order_says_nothing_where_folders_are_missing(image, tmp_path):
    image("n01440764/a.jpg"), image("n01496331/b.jpg")
    with pytest.raises(ImageError, match=r"2 folders of images, the network has 1000 classes; .*line FOLDER,INDEX"):
        list_images(tmp_path, classes=1000)
    # To calibrate with, labels don't matter.
    assert len(list_images(tmp_path).images) == 2


def test_images_beside_folders_of_images_are_ambiguous(image, tmp_path):
    image("a.png"), image("cat/b.png")
    with pytest.raises(ImageError, match="has images itself and in cat"):
        list_images(tmp_path)


def test_what_file_managers_leave_behind_is_passed_over(image, tmp_path):
    image("cat/a.jpg"), image("dog/b.jpg")
    for name in ("._a.jpg", "cat/._a.jpg", "cat/.DS_Store", ".DS_Store", "dog/Thumbs.db", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    for name in ("__MACOSX/cat", "@eaDir/x.jpg", ".thumbnails"):
        (tmp_path / name).mkdir(parents=True)
    image("__MACOSX/cat/c.jpg"), image(".thumbnails/d.jpg")
    loaded = load_images(tmp_path, classes=2)
    assert _labels(loaded.images) == [("a.jpg", 0, "cat"), ("b.jpg", 1, "dog")]
    assert loaded.skipped == ()


@pytest.mark.parametrize("labels", ["", "a.png,0\nbroken.png,1\nmissing.png,2\npipe.png,3\nz.png,4\n"])
def test_images_that_can_not_be_read_are_named_and_left_out(image, tmp_path, labels):
    image("a.png"), image("z.png")
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "missing.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    if labels:
        (tmp_path / "labels.csv").write_text(labels)
    loaded = load_images(tmp_path)
    assert [image.path.name for image in loaded.images] == ["a.png", "z.png"]
    assert len(loaded.skipped) == 3
    for says in ("broken.png: not an image", "missing.png: no such image", "pipe.png: not an image but a pipe"):
        assert sum(says in line for line in loaded.skipped) == 1
    with pytest.raises(ImageError, match=r"3 can't be read in all; leave --strict out"):
        load_images(tmp_path, strict=True)


def test_a_folder_called_like_an_image_is_left_out(image, tmp_path):
    image("a.png")
    (tmp_path / "x.jpg").mkdir()
    loaded = load_images(tmp_path)
    assert [image.path.name for image in loaded.images] == ["a.png"]
    assert "x.jpg: not an image but a folder" in loaded.skipped[0]


def test_nothing_readable_at_all_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ImageError, match=r"none of 2 images can be read; the first: .*a\.png: not an image"):
        load_images(tmp_path)


def test_a_limit_takes_images_of_all_of_the_folder(image, tmp_path):
    for position in range(10):
        image(f"{position}.png")
    assert [image.path.stem for image in load_images(tmp_path, limit=4).images] == ["0", "2", "5", "7"]
    for limit in (None, 10, 11):
        assert len(load_images(tmp_path, limit=limit).images) == 10
    assert spread(load_images(tmp_path).images, 1)[0].path.stem == "0"


def test_images_calibrated_on_can_be_left_out(image, tmp_path):
    for position in range(4):
        Image.new("L", (4, 4), position).save(image(f"all/{position}.png"))
    # Under another name, and as a link.
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "x.png").write_bytes((tmp_path / "all" / "1.png").read_bytes())
    (tmp_path / "some" / "y.png").symlink_to(tmp_path / "all" / "3.png")
    left = load_images(tmp_path / "all", exclude=tmp_path / "some")
    assert [image.path.stem for image in left.images] == ["0", "2"]
    with pytest.raises(ImageError, match="no images left, all 4 are in"):
        load_images(tmp_path / "all", exclude=tmp_path / "all")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,class_index\nnone.png,1\n", "none.png: no such image"),
        ("file,class_index\na.png,cat\n", "line 2: class_index 'cat'"),
        ("file,class_index\na.png,-1\n", "line 2: class_index '-1'"),
        ("file,class_index\na.png,1_0\n", "line 2: class_index '1_0'"),
        ("file,class_index\na.png,\u0663\n", "line 2: class_index '\u0663'"),
        (f"file,class_index\na.png,{'9' * 5000}\n", "line 2: class_index '999"),
        ("file,class_index\na.png\n", "line 2: class_index ''"),
        ("a.png,1\na.png\n", "line 2: class_index ''"),
        ("name,label\na.png,1\n", "needs the columns"),
        ("", "needs the columns"),
        ("a.png\n", "needs the columns"),
        ("file,class_index\n", "no images there"),
        ("file,class_index\na\0.png,1\n", "no such image"),
        (f"file,class_index\n{'x' * 300}.png,1\n", "can't be read"),
    ],
)
def test_bad_labels_have_one_line(image, tmp_path, table, says):
    image("a.png")
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    with pytest.raises(ImageError) as caught:
        load_images(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_text_or_no_file(image, tmp_path):
    image("a.png")
    (tmp_path / "labels.csv").write_bytes(b"file,class_index\n\xff\xfe,1\n")
    with pytest.raises(ImageError, match="can't be read"):
        list_images(tmp_path)
    (tmp_path / "labels.csv").unlink()
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(ImageError, match=r"labels\.csv: not an image but a pipe"):
        list_images(tmp_path)


def test_missing_and_empty_folders(image, tmp_path):
    with pytest.raises(ImageError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(ImageError, match="no such folder"):
        list_images(image("a/b.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images there"):
        list_images(tmp_path / "empty")
