"""Folders of Hugging Face's transformers: what config.json says and shapes do not show is obeyed or refused by name."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pixelwise
from pixelwise import catalog, from_checkpoint, load_checkpoint
from pixelwise.checkpoints.huggingface.folder import open_folder, say_what_is_open
from pixelwise.checkpoints.loading import families
from pixelwise.checkpoints.saving import convert_file
from pixelwise.encoders import mit, swin
from pixelwise.errors import WeightsError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import ADE20K
from pixelwise.models.segformer import segformer_b0
from pixelwise.weights.origin import Origin

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:the folder .* has no preprocessor_config.json")

SEGFORMER: dict[str, Any] = {
    "depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 40, 16], "decoder_hidden_size": 12, "num_labels": 5,
}  # fmt: skip
STAGES = [f"stage{i}" for i in (1, 2, 3, 4)]
BACKBONES: dict[str, dict[str, Any]] = {
    "ConvNextConfig": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1]},
    "ConvNextV2Config": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1]},
    "SwinConfig": {"embed_dim": 8, "depths": [2, 2, 1, 1], "num_heads": [1, 2, 4, 4], "window_size": 4},
    "ResNetConfig": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 1], "embedding_size": 8},
}
HEAD: dict[str, Any] = {"hidden_size": 12, "auxiliary_channels": 6, "num_labels": 5}


def segformer(**options: Any) -> nn.Module:
    config = transformers.SegformerConfig(**{**SEGFORMER, **options})
    return transformers.SegformerForSemanticSegmentation(config)


def upernet(kind: str, head: dict[str, Any] | None = None, **options: Any) -> nn.Module:
    backbone = getattr(transformers, kind)(**{"out_features": STAGES, **BACKBONES[kind], **options})
    config = transformers.UperNetConfig(backbone_config=backbone, **{**HEAD, **(head or {})})
    return transformers.UperNetForSemanticSegmentation(config)


def shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics such that every tensor matters; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.dtype == torch.int64:
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif "bias_table" in name or ".grn." in name:
            tensor.normal_(0, 1, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, 1.5 / math.sqrt(tensor[0].numel()), generator=generator)
        else:
            tensor.normal_(1 if name.endswith("weight") else 0.1, 0.3, generator=generator)
    return network.eval()


def written(network: nn.Module, folder: Path) -> Path:
    shuffled(network).save_pretrained(folder)
    return folder


def changed(folder: Path, file: str = "config.json", **values: Any) -> Path:
    """The folder with other values in its configuration; "backbone_config.depths" is a key inside one."""
    config = json.loads((folder / file).read_text())
    for key, value in values.items():
        *outer, last = key.split("__")
        inside = config
        for name in outer:
            inside = inside[name]
        inside[last] = value
    (folder / file).write_text(json.dumps(config))
    return folder


def relative(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max() / (b.max() - b.min()))


# Logits ---------------------------------------------------------------------------------------------------------------

CASES: dict[str, Any] = {
    "segformer": lambda: segformer(),
    "segformer heads": lambda: segformer(num_attention_heads=[1, 2, 4, 8]),
    "segformer relu": lambda: segformer(hidden_act="relu"),
    "segformer gelu_new": lambda: segformer(hidden_act="gelu_new"),
    "segformer strides": lambda: segformer(strides=[2, 2, 2, 2]),
    "segformer strides 4 4 2 1": lambda: segformer(strides=[4, 4, 2, 1]),
    "segformer patches": lambda: segformer(patch_sizes=[5, 3, 5, 3], sr_ratios=[4, 4, 1, 2]),
    "segformer ratios": lambda: segformer(mlp_ratios=[2, 3, 4, 1]),
    "segformer epsilon": lambda: segformer(layer_norm_eps=0.1),
    "segformer one logit": lambda: segformer(num_labels=1),
    "segformer four channels": lambda: segformer(num_channels=4, num_attention_heads=[2, 1, 8, 2]),
    "convnext": lambda: upernet("ConvNextConfig"),
    "convnext pools": lambda: upernet("ConvNextConfig", {"pool_scales": [1, 2, 4, 8]}),
    "convnext three pools": lambda: upernet("ConvNextConfig", {"pool_scales": [1, 3, 5]}),
    "convnext silu, no scale": lambda: upernet(
        "ConvNextConfig", hidden_act="silu", layer_scale_init_value=0.0
    ),
    "convnext three stages, patches of 2": lambda: upernet(
        "ConvNextConfig", out_features=STAGES[1:], patch_size=2
    ),
    "convnextv2": lambda: upernet("ConvNextV2Config"),
    "convnextv2 relu, two stages": lambda: upernet(
        "ConvNextV2Config", {"use_auxiliary_head": False}, hidden_act="relu", out_features=["stage2", "stage4"]
    ),
    "swin": lambda: upernet("SwinConfig"),
    "swin more heads than channels before": lambda: upernet("SwinConfig", num_heads=[1, 2, 4, 16]),
    "swin relu, epsilon": lambda: upernet("SwinConfig", hidden_act="relu", layer_norm_eps=0.1),
    "swin window, ratio, no bias": lambda: upernet(
        "SwinConfig", window_size=5, mlp_ratio=2.5, qkv_bias=False, patch_size=2
    ),
    "swin pools, auxiliary": lambda: upernet(
        "SwinConfig", {"pool_scales": [1, 2, 4, 8], "auxiliary_num_convs": 2, "auxiliary_concat_input": True}
    ),
    "resnet": lambda: upernet("ResNetConfig"),
    "resnet first stage": lambda: upernet("ResNetConfig", downsample_in_first_stage=True),
    "resnet in bottleneck": lambda: upernet("ResNetConfig", downsample_in_bottleneck=True, hidden_act="silu"),
    "resnet basic": lambda: upernet(
        "ResNetConfig", {"pool_scales": [2, 3, 4, 5]}, layer_type="basic", hidden_act="gelu"
    ),
    "resnet three stages": lambda: upernet("ResNetConfig", out_features=["stage1", "stage2", "stage4"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers_and_stay_so_through_our_own_file(case: str, tmp_path: Path):
    theirs = CASES[case]()
    network = from_checkpoint(written(theirs, tmp_path / "theirs"))
    pixelwise.save(network, tmp_path / "ours.safetensors")
    again = from_checkpoint(tmp_path / "ours.safetensors")
    assert again.origin.model == network.origin.model
    for size_hw in ((64, 96), (97, 77)):
        image = torch.randn(1, getattr(theirs.config, "num_channels", 3), *size_hw)
        with torch.no_grad():
            logits = theirs(image).logits
            ours = network.coarse(image) if "segformer" in case else network(image)["out"]
            assert relative(ours, logits) < 1e-5
            assert torch.equal(again.coarse(image), network.coarse(image))
            if getattr(theirs, "auxiliary_head", None) is not None:
                aux = theirs.auxiliary_head(theirs.backbone(image).feature_maps)
                aux = nn.functional.interpolate(aux, size=size_hw, mode="bilinear", align_corners=False)
                assert relative(network(image)["aux"], aux) < 1e-5


# Refusals -------------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, str, Any]] = [
    ("segformer", "num_encoder_blocks", 3),
    ("segformer", "reshape_last_stage", False),
    ("segformer", "reshape_last_stage", 1),
    ("segformer", "hidden_act", "laplace"),
    ("segformer", "num_attention_heads", [3, 2, 5, 8]),
    ("segformer", "depths", [2, 2, 2, 2]),
    ("segformer", "depths", [10**9, 2, 1, 1]),
    ("segformer", "hidden_sizes", [8, 16, 40, 65536]),
    ("segformer", "sr_ratios", [8, 4, 2, 2]),
    ("segformer", "patch_sizes", [7, 3, 3, 5]),
    ("segformer", "mlp_ratios", [4, 4, 4, 2]),
    ("segformer", "decoder_hidden_size", 16),
    ("segformer", "num_channels", 4),
    ("segformer", "strides", [4, 2, 2]),
    ("segformer", "strides", [4, 2, 2, -1]),
    ("segformer", "strides", "4222"),
    ("segformer", "classifier_dropout_prob", 2),
    ("segformer", "classifier_dropout_prob", 1.0),
    ("segformer", "drop_path_rate", float("nan")),
    ("segformer", "id2label", {"0": "a", "1": "b"}),
    ("segformer", "id2label", {"0": "a", "2": "b", "3": "c", "4": "d", "5": "e"}),
    ("segformer", "id2label", {str(i): [i] for i in range(5)}),
    ("swin", "backbone_config.model_type", "timm_backbone"),
    ("swin", "backbone_config.use_absolute_embeddings", True),
    ("swin", "backbone_config.num_heads", [1, 2, 4, 8]),
    ("swin", "backbone_config.window_size", 7),
    ("swin", "backbone_config.depths", [2, 2, 1, 2]),
    ("swin", "backbone_config.hidden_act", "quick_gelu"),
    ("swin", "backbone_config.out_features", []),
    ("swin", "backbone_config.out_features", ["stage4", "stage3", "stage2", "stage1"]),
    ("swin", "backbone_config.out_indices", [1, 2, 3]),
    ("swin", "backbone_config.image_size", None),
    ("swin", "pool_scales", [1, 2]),
    ("swin", "pool_scales", [1, 2, 3, 10**9]),
    ("swin", "pool_scales", [1, 2, 3, 513]),
    ("swin", "use_auxiliary_head", False),
    ("swin", "auxiliary_in_channels", 7),
    ("swin", "auxiliary_num_convs", 2),
    ("swin", "backbone_config", "swin"),
    ("swin", "backbone_config", {}),
    ("convnext", "backbone_config.num_stages", 3),
    ("convnext", "backbone_config.patch_size", [4, 2]),
    ("convnext", "backbone_config.layer_scale_init_value", 0.0),
    ("resnet", "backbone_config.layer_type", "basic"),
    ("resnet", "backbone_config.out_features", ["stem", "stage1", "stage2", "stage3"]),
    ("resnet", "backbone_config.downsample_in_bottleneck", "yes"),
]
IGNORED = ("backbone_config.image_size",)
"""What transformers does not look at either."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each kind, not to be changed."""
    home = tmp_path_factory.mktemp("huggingface")
    return {name: written(CASES[name](), home / name) for name in ("segformer", "convnext", "swin", "resnet")}


def copied(folders: dict[str, Path], name: str, to: Path) -> Path:
    shutil.copytree(folders[name], to / name, symlinks=True)
    return to / name


@pytest.mark.parametrize(("name", "key", "value"), REFUSED)
def test_what_cannot_be_obeyed_is_refused_with_key_value_and_file(name, key, value, folders, tmp_path):
    folder = changed(copied(folders, name, tmp_path), **{key.replace(".", "__"): value})
    if key in IGNORED:
        from_checkpoint(folder)
        return
    with pytest.raises(WeightsError) as refused:
        from_checkpoint(folder)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    wanted = "out_features" if value == [1, 2, 3] else key.rpartition(".")[2] if value != {} else "model_type"
    wanted = "num_labels" if value == {"0": "a", "1": "b"} else wanted
    assert f"{wanted}=" in sentence or wanted in sentence
    assert str(folder / "config.json") in sentence


JUNK = [
    None,
    True,
    "x",
    "",
    -1,
    0,
    10**30,
    1e300,
    float("nan"),
    [],
    {},
    [[1]],
    {"0": {"0": []}},
    [None] * 4,
    [1.5] * 4,
]


@pytest.mark.parametrize("name", ["segformer", "swin", "resnet"])
def test_junk_under_any_key_is_read_or_refused_in_one_sentence(name, folders, tmp_path):
    folder = copied(folders, name, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    inner = config.get("backbone_config", {})
    keys = [
        *config,
        *(f"backbone_config__{key}" for key in inner),
        "num_labels",
        "num_hidden_layers",
        "backbone",
    ]
    sentences = []
    for i, key in enumerate(keys):
        for value in JUNK[i % 3 :: 3]:
            (folder / "config.json").write_text(json.dumps(config))
            changed(folder, **{key: value})
            try:
                open_folder(folder)
            except WeightsError as error:
                sentences.append(str(error))
    assert len(sentences) > 40
    assert all(len(sentence.splitlines()) == 1 for sentence in sentences)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"config"', "\x00\xff", "[" * 100_000, '{"a":' * 100_000, "{}", '{"architectures": 3}',
     '{"model_type": ["segformer"]}', '{"architectures": [null], "model_type": "segformer"}',
     '{"architectures": ["SegformerForSemanticSegmentation"], "model_type": "upernet"}', "1" * 5000],
    ids=range(15),
)  # fmt: skip
def test_a_configuration_that_is_none_is_one_sentence(text, folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    for file, encoded in (("config.json", text), ("preprocessor_config.json", text)):
        if file == "preprocessor_config.json" and text.startswith('{"') and len(text) < 1000:
            continue  # an object of other keys: defaults
        if (file, text) == ("preprocessor_config.json", "{}"):
            continue
        shutil.copy(folders["segformer"] / "config.json", folder / "config.json")
        (folder / file).write_text(encoded, encoding="latin-1")
        with pytest.raises(WeightsError) as refused:
            from_checkpoint(folder)
        assert len(str(refused.value).splitlines()) == 1
        assert str(folder) in str(refused.value)


def test_a_configuration_of_many_bytes_is_not_read(folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    said = (folder / "config.json").read_text()
    (folder / "config.json").write_text(said + " " * 2**24)
    with pytest.raises(
        WeightsError, match=r"config\.json cannot be read \(it has more than 16,777,216 bytes\)"
    ):
        from_checkpoint(folder)


@pytest.mark.parametrize(
    "architecture",
    ["SegformerForImageClassification", "SegformerModel", "Mask2FormerForUniversalSegmentation",
     "MaskFormerForInstanceSegmentation", "OneFormerForUniversalSegmentation", "EomtForUniversalSegmentation",
     "BeitForSemanticSegmentation", "Data2VecVisionForSemanticSegmentation", "MobileViTForSemanticSegmentation",
     "MobileNetV2ForSemanticSegmentation", "DPTForSemanticSegmentation", "SamModel"],
)  # fmt: skip
def test_other_models_of_transformers_are_refused_by_name_before_their_tensors(architecture, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "x"}))
    with pytest.raises(WeightsError, match=f"holds a {architecture} of transformers, which pixelwise cannot"):
        from_checkpoint(tmp_path)


def test_a_model_type_alone_is_enough_to_open_or_to_refuse(folders, tmp_path):
    folder = changed(copied(folders, "segformer", tmp_path), architectures=None)
    assert from_checkpoint(folder).num_classes == 5
    with pytest.raises(WeightsError, match="holds a model of the type 'beit' of transformers"):
        from_checkpoint(changed(folder, model_type="beit"))
    both = changed(folder, architectures=["SegformerForSemanticSegmentation"], model_type="upernet")
    with pytest.raises(WeightsError, match="SegformerForSemanticSegmentation of the model_type 'upernet'"):
        from_checkpoint(both)


@pytest.mark.parametrize("stages", [[1, 2, 3, 4], [-4, -3, -2, -1]])
@pytest.mark.parametrize("names", [STAGES, None])
def test_stages_are_said_by_name_by_number_or_from_the_end(stages, names, folders, tmp_path):
    folder = changed(
        copied(folders, "swin", tmp_path),
        backbone_config__out_indices=stages,
        backbone_config__out_features=names,
    )
    expected, image = from_checkpoint(folders["swin"]), torch.randn(1, 3, 64, 64)
    assert torch.equal(from_checkpoint(folder).coarse(image), expected.coarse(image))
    with pytest.raises(WeightsError, match=r"out_(features|indices)="):
        from_checkpoint(changed(folder, backbone_config__out_indices=stages[::-1]))


def test_channels_of_an_auxiliary_head_that_is_none_do_not_matter(tmp_path):
    folder = written(CASES["convnextv2 relu, two stages"](), tmp_path)
    assert from_checkpoint(changed(folder, auxiliary_in_channels=384)).num_classes == 5
    with pytest.raises(WeightsError, match="use_auxiliary_head=True, expected false, as out_features has 2"):
        from_checkpoint(changed(folder, use_auxiliary_head=True))


def test_a_configuration_beside_the_tensors_of_another_network_is_refused(folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    shutil.copy(folders["swin"] / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(WeightsError, match="but the tensors are of a UPerNet on Swin of Hugging Face"):
        from_checkpoint(folder)


# Names and pictures ---------------------------------------------------------------------------------------------------


def picture(height: int = 60, width: int = 84) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


PROCESSORS: list[dict[str, Any]] = [
    {},
    {"size": {"height": 48, "width": 64}},
    {"size": {"shortest_edge": 50}},
    {"size": 40},
    {"do_resize": False},
    {"do_normalize": False, "size": 64},
    {"do_rescale": False, "size": 64},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0], "size": 64},
    {"image_mean": 0.5, "image_std": 0.25, "size": 64},
]


@pytest.mark.parametrize("options", PROCESSORS, ids=lambda options: ",".join(options) or "default")
def test_pictures_become_the_pixels_of_transformers_own_processor(options, folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    processor = transformers.SegformerImageProcessorPil(**options)
    processor.save_pretrained(folder)
    preprocess = from_checkpoint(folder).card.preprocess
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    for height, width in ((60, 84), (91, 55)):
        image = picture(height, width)
        theirs = processor(image, return_tensors="np").pixel_values
        ours = preprocess(image)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 2e-6 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["Segformer", "ViT"])
def test_what_a_processor_does_not_say_is_its_usual(name, folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    processor = getattr(transformers, f"{name}ImageProcessorPil")()
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": f"{name}ImageProcessor"})
    )
    image = picture()
    ours, theirs = (
        from_checkpoint(folder).card.preprocess(image),
        processor(image, return_tensors="np").pixel_values,
    )
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2e-6 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("said", "reduced"),
    [({"reduce_labels": True}, True), ({"reduce_labels": True, "do_reduce_labels": False}, False),
     ({"reduce_labels": False, "do_reduce_labels": True}, True)],
)  # fmt: skip
def test_the_older_word_for_reduced_labels_is_read_where_the_newer_is_not(said, reduced, folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    assert from_checkpoint(folder).card.labels.ids == ((1, 2, 3, 4, 5) if reduced else (0, 1, 2, 3, 4))


@pytest.mark.parametrize(
    ("key", "value"),
    [("resample", 3), ("do_center_crop", True), ("do_pad", True), ("image_processor_type", "BeitImageProcessor"),
     ("size", {"shortest_edge": 40, "longest_edge": 80}), ("size", {"height": -1, "width": 4}), ("size", "large"),
     ("image_std", [1, 0, 1]), ("image_mean", [0.5]), ("rescale_factor", 0), ("do_reduce_labels", "no")],
)  # fmt: skip
def test_preprocessing_that_we_lack_is_refused_by_key(key, value, folders, tmp_path):
    folder = copied(folders, "segformer", tmp_path)
    transformers.SegformerImageProcessorPil().save_pretrained(folder)
    changed(folder, "preprocessor_config.json", **{key: value})
    inner = "height" if isinstance(value, dict) and "height" in value else key
    with pytest.raises(WeightsError, match=rf"preprocessor_config\.json says (size\.)?{inner}="):
        from_checkpoint(folder)


@pytest.mark.parametrize("name", ["segformer", "swin"])
@pytest.mark.parametrize("reduced", [False, True])
def test_labels_names_and_files_are_those_of_the_folder(name: str, reduced: bool, folders, tmp_path):
    """Through the front door: the label map is that of transformers' own processing, with the file's ids."""
    names = ["road", "sky", "tree", "car", "person"]
    folder = changed(copied(folders, name, tmp_path), id2label=dict(enumerate(names)))
    processor = transformers.SegformerImageProcessorPil(
        size={"height": 64, "width": 96}, do_reduce_labels=reduced
    )
    processor.save_pretrained(folder)
    kind = transformers.SegformerForSemanticSegmentation
    kind = kind if name == "segformer" else transformers.UperNetForSemanticSegmentation
    theirs, image = kind.from_pretrained(folder).eval(), picture()
    with torch.no_grad():
        outputs = theirs(**(pixels := processor(image, return_tensors="pt")))
        if name == "swin":  # it enlarges twice, to the pixels and to the picture; we do once
            outputs.logits = theirs.decode_head(theirs.backbone(**pixels).feature_maps)
    expected = processor.post_process_semantic_segmentation(outputs, [image.shape[:2]])[0].numpy()

    convert_file(folder, tmp_path / "converted.safetensors")
    for source in (folder, folder / "model.safetensors", tmp_path / "converted.safetensors"):
        segmenter = pixelwise.Segmenter(from_checkpoint(source), engine="pytorch")
        labels = segmenter.card.labels
        assert labels.names == tuple(names)
        assert labels.ids == ((1, 2, 3, 4, 5) if reduced else (0, 1, 2, 3, 4))
        assert labels.ignore_id == (0 if reduced else 255)
        assert len(set(labels.colors)) == 5
        assert (
            (0, 0, 0) in labels.colors
        ) != reduced  # the first class is then none that is outside the others
        found = segmenter(image).labels.astype(int) - reduced
        assert (found == expected).mean() > 0.999  # two roundings of one interpolation may part at a tie
        assert len(np.unique(found)) > 1
        assert segmenter.card.name == name


def test_names_that_are_made_up_are_numbers_and_ade20ks_are_its_own(folders, tmp_path):
    assert from_checkpoint(folders["segformer"]).card.labels.names == tuple(f"class {i}" for i in range(5))
    theirs = segformer(num_labels=150, id2label=dict(enumerate(ADE20K.names)))
    transformers.SegformerImageProcessorPil(do_reduce_labels=True).save_pretrained(tmp_path)
    assert from_checkpoint(written(theirs, tmp_path)).card.labels == ADE20K


def test_the_number_that_counts_for_nothing_is_the_configurations(folders, tmp_path):
    folder = changed(copied(folders, "segformer", tmp_path), semantic_loss_ignore_index=99)
    assert from_checkpoint(folder).card.labels.ignore_id == 99
    for unsaid in (-100, 3, "3"):  # of nothing, of a class, of no number
        folder = changed(folder, semantic_loss_ignore_index=unsaid)
        assert from_checkpoint(folder).card.labels.ignore_id == 255
    folder = changed(copied(folders, "swin", tmp_path), loss_ignore_index=5)
    assert from_checkpoint(folder).card.labels.ignore_id == 5


def test_the_card_has_the_name_of_the_folder_or_of_what_the_hubs_cache_keeps(folders, tmp_path):
    assert from_checkpoint(folders["segformer"]).card.name == "segformer"
    snapshot = tmp_path / "models--nvidia--segformer-b0" / "snapshots" / "0f3a"
    shutil.copytree(folders["segformer"], snapshot)
    assert from_checkpoint(snapshot).card.name == "nvidia/segformer-b0"


def test_a_name_that_comes_twice_gets_its_number(folders, tmp_path):
    names = ["door", "door", "wall", "door", "sky"]
    folder = changed(copied(folders, "segformer", tmp_path), id2label=dict(enumerate(names)))
    assert from_checkpoint(folder).card.labels.names == ("door", "door (1)", "wall", "door (3)", "sky")


def test_a_single_label_is_binary(tmp_path):
    network = from_checkpoint(written(segformer(num_labels=1, id2label={0: "vessel"}), tmp_path))
    assert network.card.outputs == "binary"
    assert network.card.labels.names == ("not vessel", "vessel")
    assert catalog.card_for(network).channels == 1


@pytest.mark.filterwarnings("default")
def test_a_folder_that_does_not_say_how_pictures_are_prepared_is_opened_with_a_warning(folders, tmp_path):
    with pytest.warns(
        UserWarning, match=r"no preprocessor_config\.json, so pictures are prepared as usual: .*512"
    ):
        network = from_checkpoint(folders["segformer"])
    assert network.card.preprocess == catalog.entry("segformer_b0").card.preprocess
    with pytest.warns(UserWarning, match=r"their own size, mean \(0\.0, 0\.0, 0\.0, 0\.0\) and std \(1\.0, "):
        network = from_checkpoint(written(segformer(num_channels=4), tmp_path))
    assert network.card.preprocess == Preprocess((0.0,) * 4, (1.0,) * 4)


# Files ----------------------------------------------------------------------------------------------------------------


def test_folders_cut_into_shards_and_torchs_files_are_read(folders, tmp_path):
    theirs = CASES["segformer"]()
    shuffled(theirs).save_pretrained(tmp_path / "cut", max_shard_size="10KB")
    assert len(list((tmp_path / "cut").glob("model-*.safetensors"))) > 2
    expected = from_checkpoint(folders["segformer"]).state_dict()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    shutil.copy(folders["segformer"] / "config.json", tmp_path)
    for folder in (tmp_path, tmp_path / "cut"):
        found = from_checkpoint(folder).state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    shard = next((tmp_path / "cut").glob("model-*.safetensors"))
    index = tmp_path / "cut" / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    unlisted = sorted(places["weight_map"])[0]
    fewer = {key: name for key, name in places["weight_map"].items() if key != unlisted}
    index.write_text(json.dumps({"weight_map": fewer}))
    with pytest.raises(WeightsError, match=f"hold other tensors: '{unlisted}' is in one of the two only"):
        from_checkpoint(tmp_path / "cut")
    index.write_text(json.dumps(places))
    shard.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(WeightsError, match=f"{shard.name}.*does not lie beside it"):
        from_checkpoint(tmp_path / "cut")
    for name in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors"), 3):
        first = next(iter(places["weight_map"]))
        index.write_text(json.dumps({"weight_map": {**places["weight_map"], first: name}}))
        with pytest.raises(WeightsError, match=r"index\.json"):
            from_checkpoint(tmp_path / "cut")


def test_the_file_of_a_folder_is_opened_by_its_configuration(tmp_path):
    theirs = segformer(num_attention_heads=[2, 4, 1, 1])
    folder = written(theirs, tmp_path)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = theirs(image).logits
        assert relative(from_checkpoint(folder / "model.safetensors").coarse(image), logits) < 1e-5
    (folder / "config.json").write_text('{"learning_rate": 0.1}')
    with pytest.warns(UserWarning, match="do not say num_attention_heads"):
        from_checkpoint(folder / "model.safetensors")
    with pytest.raises(WeightsError, match="does not say which architecture of transformers it is of"):
        from_checkpoint(folder)


@pytest.mark.parametrize(
    ("case", "words"),
    [("segformer", "num_attention_heads, strides and hidden_act"), ("convnext", "hidden_act and pool_scales"),
     ("convnextv2", "hidden_act and pool_scales"), ("swin", "hidden_act, layer_norm_eps and pool_scales"),
     ("resnet", "downsample_in_first_stage, downsample_in_bottleneck")],
)  # fmt: skip
def test_bare_tensors_of_an_unpublished_network_are_opened_with_a_warning(case: str, words: str, tmp_path):
    theirs = CASES[case]()
    file = written(theirs, tmp_path) / "model.safetensors"
    file = file.rename(tmp_path / "bare.safetensors")
    with pytest.warns(UserWarning, match=f"do not say {words}"):
        network = from_checkpoint(file)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = theirs(image).logits
        ours = network.coarse(image) if case == "segformer" else network(image)["out"]
        assert relative(ours, logits) < 1e-5  # here the usual ones are right
    back = next(f for f in families() if f.name.startswith("huggingface.") and f.matches(load(file)) == len(f.marks)
                and ("v2" in f.name) == (case == "convnextv2"))  # fmt: skip
    again = back.to_theirs(network.state_dict())
    kept = {key: tensor for key, tensor in load(file).items() if "swin.layernorm" not in key}
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in kept.items())


def load(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_bare_tensors_do_not_say_another_number_of_pools(tmp_path):
    file = written(CASES["convnext three pools"](), tmp_path) / "model.safetensors"
    with pytest.raises(WeightsError, match="pools in 3 sizes, and do not say which; give the folder"):
        from_checkpoint(file.rename(tmp_path / "bare.safetensors"))


def test_published_sizes_are_opened_without_a_warning():
    network = segformer_b0(num_classes=3)
    family = next(family for family in families() if family.name == "huggingface.segformer")
    assert from_checkpoint(family.to_theirs(network.state_dict())).num_classes == 3


@pytest.mark.parametrize(("window", "published"), [(7, True), (12, True), (8, False)])
def test_a_swin_transformer_of_a_published_size_has_a_published_window(window: int, published: bool):
    size = swin.SIZES["swin_tiny"]
    arguments = {"channels": size.channels, "depths": size.depths, "heads": size.heads, "mlp_ratio": 4}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        say_what_is_open("huggingface.upernet_swin", Origin("upernet_swin", {**arguments, "window": window}))
    assert [str(one.message)[:44] for one in said] == (
        [] if published else ["these tensors do not say hidden_act, layer_n"]
    )


def test_a_folder_does_not_go_into_a_network_that_computes_otherwise(tmp_path):
    training = {
        "drop_path_rate": 0.3,
        "hidden_dropout_prob": 0.2,
        "classifier_dropout_prob": 0.4,
    }  # computes the same
    theirs = segformer(num_attention_heads=[1, 2, 4, 8], hidden_act="relu", **training)
    folder = written(theirs, tmp_path)
    sizes = {"channels": (8, 16, 40, 16), "depths": (1, 2, 1, 1), "width": 12, "num_classes": 5}
    with pytest.raises(WeightsError, match=r"heads=\(1, 2, 4, 8\), this one has \(1, 2, 5, 8\)"):
        load_checkpoint(segformer_b0(**sizes), folder)
    fitting = segformer_b0(**sizes, heads=(1, 2, 4, 8), activation="relu", eps="huggingface").eval()
    load_checkpoint(fitting, folder)
    assert vars(fitting)["card"].labels.names[4] == "class 4"
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative(fitting.coarse(image), theirs(image).logits) < 1e-5


# The networks that only such folders bring ----------------------------------------------------------------------------


def networks() -> dict[str, nn.Module]:
    head: dict[str, Any] = {"num_classes": 3, "in_channels": 4, "width": 8, "aux_width": 4}
    stages = {"channels": (8, 12, 16, 20), "depths": (1, 2, 1, 1)}
    swin = {"channels": 8, "depths": (1, 2, 1, 1), "heads": (1, 2, 2, 4), "window": 3}
    create = pixelwise.create_model
    return {
        "upernet_convnextv2": create("upernet_convnextv2", **head, **stages, drop_path=0.0),
        "upernet_resnet": create("upernet_resnet", **head, **stages, stem=8, bottleneck=False),
        "upernet_swin": create("upernet_swin", **head, **swin, drop_path=0.0),
    }


@pytest.mark.parametrize("name", networks())
def test_gradients_reach_every_parameter(name: str):
    network = shuffled(networks()[name]).train()
    out = network(torch.randn(2, 4, 64, 96))
    sum((logits * torch.randn_like(logits)).sum() for logits in out.values()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


@pytest.mark.parametrize(
    ("case", "key"),
    [("segformer", "hidden_dropout_prob"), ("segformer", "attention_probs_dropout_prob"),
     ("segformer", "classifier_dropout_prob"), ("segformer", "drop_path_rate"),
     ("swin", "backbone_config__hidden_dropout_prob"), ("swin", "backbone_config__attention_probs_dropout_prob"),
     ("swin", "backbone_config__drop_path_rate"), ("convnext", "backbone_config__drop_path_rate")],
)  # fmt: skip
def test_rates_of_dropping_are_those_of_the_configuration(case: str, key: str, folders, tmp_path):
    """In training, with frozen norms: two passes are equal without dropping, and differ with any one rate."""
    inner = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
    off = {f"backbone_config__{k}": 0.0 for k in inner} if case != "segformer" else dict.fromkeys(inner, 0.0)
    folder = changed(copied(folders, case, tmp_path), **off, classifier_dropout_prob=0.0)
    for rate in (0.0, 0.6):
        network = from_checkpoint(changed(folder, **{key: rate})).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        torch.manual_seed(0)
        image = torch.randn(2, 3, 64, 64)
        passes = [network.coarse(image) for _ in range(3)]
        assert any(not torch.equal(passes[0], other) for other in passes[1:]) == (rate > 0)
        network.eval()
        assert torch.equal(network.coarse(image), network.coarse(image))


@pytest.mark.slow
@pytest.mark.parametrize("name", networks())
def test_the_onnx_export_equals_the_network_at_other_sizes(name: str):
    from exported import largest_difference

    network = shuffled(networks()[name])
    assert largest_difference(network, (2, 4, 64, 96), (1, 4, 33, 71), (2, 4, 97, 50)) < 1e-4


def test_the_smallest_picture_of_a_mix_transformer_is_computed():
    usual = mit.MixTransformer((8, 8, 8, 8), (1, 1, 1, 1), heads=(1, 1, 1, 1))
    other = mit.MixTransformer((8, 8, 8, 8), (1, 1, 1, 1), heads=(1, 1, 1, 1), patch_strides=(2, 2, 2, 2))
    assert (usual.smallest_px, other.smallest_px) == (29, 15)
    for network in (usual, other):
        least = network.smallest_px
        assert network(torch.randn(1, 3, least, least))[0].shape[-1] == 8
        with pytest.raises(ValueError, match=f"at least {least}x{least}"):
            network(torch.randn(1, 3, least, least - 1))
