"""The two models inside the package: card, size, behaviour, and their scores where the data are at hand."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import pixelwise
from pixelwise import Segmenter
from pixelwise.errors import InputError
from pixelwise.exporting import export_model
from pixelwise.labels import VOC

onnx = pytest.importorskip("onnx", reason="looks into the files with the onnx package")

DATA = Path(__file__).parents[2] / "shared" / "data"
ASSETS = Path(str(resources.files("pixelwise"))) / "assets"
NAMES = ("everyday", "nuclei")


@pytest.fixture(scope="module", params=NAMES)
def segmenter(request):
    return Segmenter(request.param)


def data(folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"needs {folder} in ../shared/data")
    return DATA


def test_the_files_are_small_enough_to_live_in_git():
    sizes = {name: (ASSETS / f"{name}.onnx").stat().st_size for name in NAMES}
    assert sizes["nuclei"] <= 3 * 2**20
    assert sum(sizes.values()) <= 12 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_complete_and_tells_nothing_of_the_machine_it_was_made_on(name):
    path = ASSETS / f"{name}.onnx"
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert all(
        tensor.data_type == onnx.TensorProto.FLOAT
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1
    )
    content = path.read_bytes()
    for trace in (b".py", b"/home/", b"site-packages"):
        assert trace not in content.replace(b"recipes/%s.py" % name.encode(), b"")


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_a_batch_of_pictures_of_any_size(name):
    graph = onnx.load(ASSETS / f"{name}.onnx").graph
    (image,), (logits,) = graph.input, graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert image.type.tensor_type.elem_type == logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dims = image.type.tensor_type.shape.dim
    assert dims[1].dim_value == 3
    assert len({dims[i].dim_param for i in (0, 2, 3)} - {""}) == 3


def test_the_card_says_where_the_model_comes_from_and_how_good_it_is(segmenter):
    card = segmenter.card
    assert card.name in NAMES
    assert card.scores
    assert all(0.5 < score.value < 1 and score.data and score.protocol for score in card.scores)
    assert card.licence.startswith("Apache-2.0")
    assert card.parameters > 500_000
    assert card.multiply_adds > card.parameters
    words = " ".join((card.origin, *card.notes))
    if card.name == "everyday":
        assert segmenter.classes == VOC
        assert "8-bit" in words
        assert "not known whether" in words
        assert "Flickr" in words
        assert card.preprocess.size_hw(375, 500) == (385, 513)
    else:
        assert segmenter.classes.names == ("background", "nucleus")
        assert "CC0" in words


@pytest.mark.parametrize("size_hw", [(16, 16), (97, 130), (200, 33)])
def test_logits_have_the_size_that_the_card_promises(segmenter, size_hw):
    image = np.random.default_rng(0).normal(size=(2, 3, *size_hw)).astype(np.float32)
    logits = segmenter.engine(image)
    stride = segmenter.card.stride
    assert logits.shape == (2, segmenter.classes.num_classes, *(-(-side // stride) for side in size_hw))
    np.testing.assert_allclose(segmenter.engine(image[1:]), logits[1:], atol=1e-4 * np.ptp(logits))


@pytest.mark.parametrize("name", NAMES)
def test_create_model_gives_the_trained_network_with_the_logits_and_the_card_of_its_file(name, tmp_path):
    torch = pytest.importorskip("torch", reason="makes the network")
    network, segmenter = pixelwise.create_model(name), Segmenter(name)
    assert not network.training
    for size_hw in ((97, 130), (200, 33)):
        image = np.random.default_rng(0).normal(size=(2, 3, *size_hw)).astype(np.float32)
        with torch.inference_mode():
            logits = network.coarse(torch.from_numpy(image)).numpy()
        expected = segmenter.engine(image)
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.ptp(expected))
    assert Segmenter(network).card == segmenter.card
    assert sum(parameter.numel() for parameter in network.parameters()) == segmenter.card.parameters
    pixelwise.save(network, tmp_path / "it.safetensors")
    again = pixelwise.from_checkpoint(tmp_path / "it.safetensors")
    state = again.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in network.state_dict().items())
    assert Segmenter(again).card == segmenter.card


@pytest.mark.parametrize(
    ("name", "asked", "instead"),
    [
        ("everyday", {"num_classes": 4}, "create_model('deeplabv3_mobilenet_v2', num_classes=4)"),
        ("everyday", {"weights": None}, "create_model('deeplabv3_mobilenet_v2', weights=None)"),
        ("nuclei", {"in_channels": 1}, "create_model('unet_bilinear', width=12, in_channels=1)"),
        ("nuclei", {"width": 64}, "create_model('unet_bilinear', width=64)"),
    ],
)
def test_another_network_under_the_name_of_a_trained_model_is_refused(name, asked, instead):
    with pytest.raises(InputError, match=rf"^{name} is a trained model, whose ") as caught:
        pixelwise.create_model(name, **asked)
    assert str(caught.value).endswith(f"say {instead}")
    made = eval(f"pixelwise.{instead}")
    assert made.num_classes == asked.get("num_classes", made.num_classes)
    assert "card" not in vars(made)


def test_what_is_said_of_a_trained_model_as_it_is_may_be_said():
    asked = {"num_classes": 2, "in_channels": 3, "width": 12, "weights": "DEFAULT"}
    assert pixelwise.create_model("nuclei", **asked).origin.arguments["width"] == 12
    assert pixelwise.create_model("nuclei", weights=True).num_classes == 2


def test_a_label_map_has_the_size_of_its_picture(segmenter):
    picture = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    labels = segmenter(picture).labels
    assert labels.shape == (61, 83)
    assert labels.max() < segmenter.classes.num_classes


def test_everyday_finds_the_cat_in_a_free_photograph():
    skimage_data = pytest.importorskip("skimage.data", reason="needs scikit-image's photograph")
    areas = Segmenter("everyday")(skimage_data.chelsea()).areas()
    assert areas["cat"] > 0.5
    assert set(areas) <= {"background", "cat"}


def test_everyday_in_int8_is_asked_for_by_its_precision_and_loses_next_to_nothing(tmp_path):
    skimage_data = pytest.importorskip("skimage.data", reason="needs scikit-image's photograph")
    path = ASSETS / "everyday.int8.onnx"
    assert path.stat().st_size <= 2.5 * 2**20
    for trace in (b"/home/", b"/tmp/", b"site-packages"):
        assert trace not in path.read_bytes()
    small, large = Segmenter("everyday", precision="int8"), Segmenter("everyday")
    assert (small.engine.precision, large.engine.precision) == ("int8", "float32")
    assert small.card.labels == large.card.labels
    for one, other in zip(small.card.scores, large.card.scores, strict=True):
        assert (one.metric, one.data, one.protocol) == (other.metric, other.data, other.protocol)
        assert abs(one.value - other.value) < 0.005
    photo = skimage_data.chelsea()
    assert (small(photo).labels == large(photo).labels).mean() > 0.97
    assert (
        export_model("everyday", tmp_path / "it.onnx", precision="int8")
        == "the file that ships in the package"
    )
    assert (tmp_path / "it.onnx").read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="quantise it first"):
        Segmenter("nuclei", precision="int8")


@pytest.mark.slow
def test_everyday_scores_what_its_card_says_on_a_tenth_of_val():
    from pixelwise.datasets.opening import open_samples
    from pixelwise.evaluation import evaluate
    from pixelwise.recipes import everyday

    val = open_samples(data("voc2012_animals") / "voc2012_animals", "voc", "val")
    confusion = evaluate(Segmenter("everyday"), [val[i] for i in range(0, len(val), 10)]).confusion
    scores = {score.metric: score.value for score in Segmenter("everyday").card.scores}
    assert confusion.pixel_accuracy() == pytest.approx(scores["pixel accuracy"], abs=0.02)
    populated = [VOC.index(name) for name in everyday.POPULATED]
    assert confusion.mean_iou(populated) == pytest.approx(scores["mIoU of 7 classes"], abs=0.05)


@pytest.mark.slow
def test_nuclei_scores_what_its_card_says_on_the_held_out_tiles():
    from pixelwise.recipes import nuclei

    _, held_out = nuclei.tiles(data("dsb2018_nuclei"))
    whole, mean = nuclei.score(Segmenter("nuclei"), held_out)
    assert whole == pytest.approx(Segmenter("nuclei").card.scores[0].value, abs=1e-3)
    assert mean == pytest.approx(Segmenter("nuclei").card.scores[1].value, abs=1e-3)
    assert whole > 0.9
