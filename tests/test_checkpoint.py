"""Checkpoints are recognised by their keys, loaded whole or not at all, and written back."""

from __future__ import annotations

import fractions
import functools
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import pixelwise
from pixelwise import create_model, from_checkpoint, load_checkpoint, models
from pixelwise.checkpoints import loading
from pixelwise.checkpoints.loading import families, recognise
from pixelwise.checkpoints.making import outline
from pixelwise.checkpoints.saving import convert_file
from pixelwise.checkpoints.smp.tensors import to_theirs as smp_names
from pixelwise.cli.app import app
from pixelwise.decoders import DECODERS
from pixelwise.errors import (
    InputError,
    OutputError,
    PixelwiseError,
    PixelwiseWarning,
    UnknownNameError,
    WeightsError,
)
from pixelwise.models.deeplabv2 import RESNET101
from pixelwise.weights import store
from pixelwise.weights.card import Card
from pixelwise.weights.origin import Origin, origin_of


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's smallest network with random weights, 7 classes."""
    torch.manual_seed(0)
    build = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    return build(weights=None, weights_backbone=None, num_classes=7).eval()


@pytest.fixture
def file(theirs, tmp_path):
    torch.save(
        {"model": {f"module.{k}": v for k, v in theirs.state_dict().items()}, "epoch": 3}, tmp_path / "x.pth"
    )
    return tmp_path / "x.pth"


def same_logits(ours: nn.Module, theirs: nn.Module) -> None:
    image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = theirs.eval()(image)["out"], ours.eval()(image)["out"]
    assert (got - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())


def test_a_wrapped_file_is_recognised_built_and_loaded(file, theirs):
    network = from_checkpoint(file)
    assert origin_of(network).model == "lraspp_mobilenet_v3_large"
    assert network.num_classes == 7
    same_logits(network, theirs)


def test_a_dictionary_of_arrays_will_do(theirs):
    same_logits(from_checkpoint({k: v.numpy() for k, v in theirs.state_dict().items()}), theirs)


def test_our_file_says_itself_how_to_build_the_network(file, theirs, tmp_path):
    said = convert_file(file, tmp_path / "ours.safetensors")
    assert "lraspp_mobilenet_v3_large" in said
    same_logits(from_checkpoint(tmp_path / "ours.safetensors"), theirs)
    back = tmp_path / "back.pth"
    convert_file(tmp_path / "ours.safetensors", back, to="torchvision.lraspp")
    theirs.load_state_dict(torch.load(back, weights_only=True), strict=True)


TINY: dict[str, tuple[str, dict[str, object], tuple[int, ...]]] = {
    "our names": ("unet", {"width": 2, "num_classes": 3, "in_channels": 2}, (2, 33, 48)),
    "deep supervision": ("unetplusplus_ds", {"filters": (2, 3, 4, 5, 6)}, (3, 32, 48)),
    "volumes": ("nonewnet", {"width": 2}, (4, 16, 16, 32)),
    "rows of a table": (
        "deeplabv2_resnet101", {"stages": tuple(row._replace(blocks=1, channels=4) for row in RESNET101)}, (3, 49, 65),
    ),
    "sizes": (
        "segformer_b1", {"channels": (8, 16, 40, 64), "depths": (1, 1, 1, 1), "width": 8, "eps": "huggingface"},
        (3, 64, 97),
    ),
    "VGG-16": ("fcn8s_vgg16", {"width_mult": 1 / 16, "num_classes": 4}, (3, 40, 50)),
    "torchvision's, with an auxiliary head": (
        "deeplabv3_mobilenet_v3_large", {"aux_loss": True, "num_classes": 4, "weights_backbone": None}, (3, 65, 97),
    ),
    "composed": (
        "unet", {"encoder": "resnet18", "num_classes": 2, "norm": {"name": "group", "groups": 4}, "aux_loss": True},
        (3, 64, 96),
    ),
    "composed on timm's": (
        "fpn", {"encoder": "tu-test_resnet", "num_classes": 5, "pyramid_channels": 8, "segmentation_channels": 8},
        (3, 64, 96),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TINY)
def test_what_is_saved_opens_as_the_same_network(kind, tmp_path):
    name, arguments, shape = TINY[kind]
    torch.manual_seed(0)
    network = create_model(name, **arguments).eval()
    for parameter in network.parameters():
        if not parameter.any():  # as classifiers and biases begin
            nn.init.normal_(parameter, std=0.1)
    pixelwise.save(network, tmp_path / "it.safetensors")
    again = from_checkpoint(tmp_path / "it.safetensors")
    assert not again.training
    assert str(again.origin) == str(network.origin)
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = network(image), again(image)
    assert list(got) == list(expected)
    for head in expected:
        assert torch.equal(got[head], expected[head]), head
    assert expected["out"].std() > 0


def test_a_network_made_with_weights_is_saved_without_asking_for_them_again(tmp_path, monkeypatch):
    file, name = "lraspp_mobilenet_v3_large-d234d4ea.pth", "COCO_WITH_VOC_LABELS_V1"
    official = models.lraspp_mobilenet_v3_large(weights_backbone=None).eval()
    torch.save(official.state_dict(), tmp_path / file)
    monkeypatch.setenv("PIXELWISE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(store, "digest", lambda path: "d234d4ea" + "0" * 56)
    network = models.lraspp_mobilenet_v3_large(weights=name)
    (tmp_path / file).unlink()
    pixelwise.save(network, tmp_path / "it.safetensors")
    same_logits(from_checkpoint(tmp_path / "it.safetensors"), official)


def test_a_card_travels_along_and_is_made_where_none_is_given(tmp_path):
    def card_in(path) -> Card:
        return pixelwise.Segmenter(path).card

    network = create_model("unet", width=2, num_classes=3)
    pixelwise.save(network, tmp_path / "bare.safetensors")
    bare = card_in(tmp_path / "bare.safetensors")
    assert (bare.architecture, bare.labels.num_classes) == ("unet", 3)
    named = bare.replace(labels=pixelwise.LabelSet.of(["street", "grass", "sky"]))
    pixelwise.save(network, tmp_path / "named.safetensors", card=named)
    assert card_in(tmp_path / "named.safetensors") == named
    convert_file(tmp_path / "named.safetensors", tmp_path / "converted.safetensors")
    pixelwise.save(from_checkpoint(tmp_path / "named.safetensors"), tmp_path / "again.safetensors")
    assert card_in(tmp_path / "converted.safetensors") == card_in(tmp_path / "again.safetensors") == named
    loaded = from_checkpoint(tmp_path / "named.safetensors")
    load_checkpoint(loaded, tmp_path / "bare.safetensors")  # other weights, another card
    assert pixelwise.Segmenter(loaded, engine="pytorch").card == bare
    load_checkpoint(loaded, dict(network.state_dict()))  # which say nothing of their classes
    with pytest.warns(PixelwiseWarning, match="named by number"):
        assert pixelwise.Segmenter(loaded).classes.names == ("class 0", "class 1", "class 2")
    for labels in (["a", "b"], ["a", "b", "c", "d"]):
        card = named.replace(labels=pixelwise.LabelSet.of(labels))
        with pytest.raises(InputError, match=f"names {len(labels)} classes, the network has 3 outputs"):
            pixelwise.save(network, tmp_path / "wrong.safetensors", card=card)


def test_the_networks_of_the_embedded_models_are_saved_under_their_builders(tmp_path):
    network = models.builder_of("everyday")(num_classes=4, width_mult=0.25).eval()
    pixelwise.save(network, tmp_path / "it.safetensors")
    again = from_checkpoint(tmp_path / "it.safetensors")
    assert again.origin.model == "deeplabv3_mobilenet_v2"
    same_logits(again, network)


def test_a_network_whose_layers_were_changed_is_not_written_as_it_was_built(tmp_path):
    def changed(change) -> nn.Module:
        network = create_model("unet", width=2)
        change(network)
        return network

    def without_relu(network):
        network.inc.double_conv[2] = nn.Identity()

    def another_eps(network):
        network.inc.double_conv[1].eps = 0.1

    def dilated(network):
        network.inc.double_conv[0].dilation = network.inc.double_conv[0].padding = (2, 2)

    for change in (without_relu, another_eps, dilated):
        with pytest.raises(InputError, match=r"is not as it was built.*where it is built anew with"):
            pixelwise.save(changed(change), tmp_path / "it.safetensors")
    with torch.device("meta"), pytest.raises(InputError, match="hold no values"):
        pixelwise.save(create_model("unet", width=2), tmp_path / "it.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("[1]", "in its header of its network cannot be read"),
        ("{", "in its header of its network cannot be read"),
        ('{"model": "unet"}', "in its header of its network cannot be read"),
        ('{"model": ["unet"], "arguments": {}}', "expected a text"),
        ('{"model": "unet", "arguments": []}', "expected an object"),
        ('{"model": "unet", "arguments": {"num_classes": "x"}}', "cannot be built"),
        ('{"model": "unet", "arguments": {"nim_classes": 2}}', "cannot be built"),
        ('{"model": "unit", "arguments": {}}', "Unknown model 'unit'"),
        ('{"model": "unet", "arguments": {"width": 65537}}', "expected whole numbers from -65536 to 65536"),
        ('{"model": "unet", "arguments": {"encoder": "local-dir:/x"}}', "'local-dir:/x', which lies elsewhere"),
        ('{"model": "unet", "arguments": {"encoder": "somebody/resnet18"}}', "which lies elsewhere"),
        ('{"model": "unet", "arguments": {"encoder": "timm/somebody/resnet18"}}', "which lies elsewhere"),
        ('{"model": "unet", "arguments": {"encoder": ["resnet18"]}}', "which lies elsewhere"),
        ('{"model": "unet", "arguments": {"encoder": "tu-test_resnet", "encoder_options": {"pretrained": true}}}',
         r"take weights from elsewhere \(pretrained\)"),
        ('{"model": "unet", "arguments": {"encoder": "tu-test_resnet", "encoder_options": {"checkpoint_path": "/x"}}}',
         "take weights from elsewhere"),
    ],
)  # fmt: skip
def test_a_header_that_was_edited_is_told_in_one_sentence_and_fetches_nothing(said, why, tmp_path):
    file = tmp_path / "it.safetensors"
    save_file(create_model("unet", width=2).state_dict(), file, metadata={"pixelwise.plan": said})
    with pytest.raises(PixelwiseError, match=why):
        from_checkpoint(file)


def test_a_network_that_its_tensors_do_not_fit_is_not_built(tmp_path, monkeypatch):
    """Its arguments may be anybody's, and ask for all of the memory."""
    file, said = tmp_path / "it.safetensors", '{"model": "unet", "arguments": {"width": 4}}'
    save_file(create_model("unet", width=2).state_dict(), file, metadata={"pixelwise.plan": said})
    monkeypatch.setattr(loading, "build", lambda origin: pytest.fail("memory was taken for it"))
    with pytest.raises(WeightsError, match="tensors of another shape"):
        from_checkpoint(file)


def test_a_network_of_far_more_parts_than_there_are_tensors_is_given_up_while_it_is_made(tmp_path):
    file, said = (
        tmp_path / "it.safetensors",
        '{"model": "segformer_b0", "arguments": {"depths": [3000, 2, 2, 2]}}',
    )
    save_file(create_model("unet", width=2).state_dict(), file, metadata={"pixelwise.plan": said})
    with pytest.raises(WeightsError, match=r"network has more than [\d,]+ parts and the file [\d,]+ tensors"):
        from_checkpoint(file)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 2)])
def test_tensors_of_other_dimensions_are_told_in_one_sentence(shape, theirs):
    tensors = dict(theirs.state_dict())
    tensors["classifier.low_classifier.weight"] = torch.zeros(shape)
    with pytest.raises(WeightsError):
        from_checkpoint(tensors)


def test_a_replaced_head_is_saved_with_its_own_number_of_classes(tmp_path):
    network = create_model("lraspp_mobilenet_v3_large", weights_backbone=None).eval()
    network.classifier.low_classifier = nn.Conv2d(40, 5, 1)
    network.classifier.high_classifier = nn.Conv2d(128, 5, 1)
    pixelwise.save(network, tmp_path / "five.safetensors")
    again = from_checkpoint(tmp_path / "five.safetensors")
    assert (again.num_classes, again.origin.arguments["num_classes"]) == (5, 5)
    assert "num_classes" not in network.origin.arguments
    same_logits(again, network)


def test_what_could_not_be_opened_again_is_not_written(tmp_path):
    network = create_model("lraspp_mobilenet_v3_large", weights_backbone=None)
    network.classifier.low_classifier = nn.Conv2d(40, 5, 1)  # and not the other half of the head
    headless, grown = create_model("unet", width=2), create_model("unet", width=2)
    headless.outc, grown.more = nn.Identity(), nn.Conv2d(2, 2, 1)
    refused = {
        r"classifier\.low_classifier\.weight has the shape \(5, 40, 1, 1\), built anew \(21, 40, 1, 1\); build it":
            network,
        r"outc\.conv\.weight is missing; build it": headless,
        r"more\.weight is not in it when it is built anew; build it": grown,
        "how this Conv2d was made is not known": nn.Conv2d(3, 4, 1),
        r"unet on tu-test_resnet was built with encoder_options=.*ReLU.*, which a file cannot hold": create_model(
            "unet", encoder="tu-test_resnet", encoder_options={"act_layer": nn.ReLU}
        ),
    }  # fmt: skip
    for why, one in refused.items():
        with pytest.raises(InputError, match=why):
            pixelwise.save(one, tmp_path / "it.safetensors")
    whole = create_model("unet", width=2)
    with pytest.raises(InputError, match=r"expected a name that ends in \.safetensors, got .*it\.pth"):
        pixelwise.save(whole, tmp_path / "it.pth")
    assert list(tmp_path.iterdir()) == []
    pixelwise.save(whole, tmp_path / "it.safetensors")
    with pytest.raises(OutputError, match="exists already"):
        pixelwise.save(whole, tmp_path / "it.safetensors", overwrite=False)
    before = (tmp_path / "it.safetensors").read_bytes()
    pixelwise.save(create_model("unet", width=2), tmp_path / "other.safetensors")
    for to in (None, "milesial.unet"):
        with pytest.raises(OutputError, match="exists already"):
            convert_file(tmp_path / "other.safetensors", tmp_path / "it.safetensors", to=to)
    assert (tmp_path / "it.safetensors").read_bytes() == before
    convert_file(tmp_path / "other.safetensors", tmp_path / "it.safetensors", overwrite=True)
    assert (tmp_path / "it.safetensors").read_bytes() != before


def test_load_checkpoint_fills_an_existing_network(file, theirs):
    network = create_model("lraspp_mobilenet_v3_large", num_classes=7, weights_backbone=None)
    load_checkpoint(network, file)
    same_logits(network, theirs)


def damaged(theirs: nn.Module, how: str) -> dict[str, torch.Tensor]:
    tensors = dict(theirs.state_dict())
    key = "backbone.4.block.1.0.weight"
    tensor = tensors.pop(key)
    if how == "renamed":
        tensors[key.replace("block", "blok")] = tensor
    elif how == "misshapen":
        tensors[key] = tensor[:-1]
    elif how == "surplus":
        tensors |= {key: tensor, "more": tensor}
    return tensors


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "1 keys missing (backbone.4.block.1.0.weight)"),
        ("renamed", "backbone.4.blok.1.0.weight"),
        ("misshapen", "instead of"),
        ("surplus", "1 keys surplus (more)"),
    ],
)
def test_a_damaged_checkpoint_loads_nothing(how, says, theirs):
    network = create_model("lraspp_mobilenet_v3_large", num_classes=7, weights_backbone=None)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for load in (from_checkpoint, lambda tensors: load_checkpoint(network, tensors)):
        with pytest.raises(WeightsError) as caught:
            load(damaged(theirs, how))
        assert says in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_wrong_number_of_classes_is_said(theirs):
    network = create_model("lraspp_mobilenet_v3_large", num_classes=5, weights_backbone=None)
    with pytest.raises(WeightsError, match="these weights have 7 classes, the network 5"):
        load_checkpoint(network, theirs.state_dict())


def test_an_unknown_family_is_answered_with_the_nearest(theirs):
    with pytest.raises(WeightsError, match="belong to no family"):
        from_checkpoint({"encoder.0.weight": torch.zeros(3)})
    tensors = {k.replace("scale.1", "scale.2"): v for k, v in theirs.state_dict().items()}
    with pytest.raises(WeightsError, match=r"LRASPP.*would also have 'classifier\.scale\.1\.weight'"):
        from_checkpoint(tensors)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="would run code"):
        from_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_that_is_trusted_is_read_under_any_name(theirs, tmp_path):
    for name in (
        "best.pt",
        "other.pt",
    ):  # a run of ours, whose card stands beside the tensors, has that name too
        torch.save({"state_dict": theirs.state_dict(), "rate": fractions.Fraction(1, 2)}, tmp_path / name)
        with pytest.raises(WeightsError, match="would run code"):
            from_checkpoint(tmp_path / name)
        same_logits(from_checkpoint(tmp_path / name, allow_pickle=True), theirs)


def test_what_the_refusal_of_a_pickle_says_to_do_works(theirs, tmp_path):
    path = tmp_path / "of a friend.pt"
    torch.save({"state_dict": theirs.state_dict(), "rate": fractions.Fraction(1, 2)}, path)
    with pytest.raises(WeightsError) as refused:
        from_checkpoint(path)
    found = re.search(r"run: pixelwise (convert .* --allow-pickle), or open it with", str(refused.value))
    done = CliRunner().invoke(app, shlex.split(found[1]))
    assert done.exit_code == 0, done.exception
    same_logits(from_checkpoint(path.with_suffix(".safetensors")), theirs)
    assert "from_checkpoint(path, allow_pickle=True)" in str(refused.value)
    same_logits(from_checkpoint(path, allow_pickle=True), theirs)


FILES: dict[str, tuple[str, dict[str, object]]] = {
    "caffe.deeplabv1": ("deeplabv1_vgg16_largefov", {}),
    "caffe.deeplabv2_vgg16": ("deeplabv2_vgg16_aspp_l", {}),
    "caffe.deeplabv2_resnet101": ("deeplabv2_resnet101", {}),
    "kazuto.deeplabv2": ("deeplabv2_resnet101", {}),
    "isht7.deeplabv2": ("deeplabv2_resnet101", {}),
    "vainf.deeplabv3": ("deeplabv3_resnet50_vainf", {}),
    "vainf.deeplabv3plus": ("deeplabv3plus_mobilenet_v2_vainf", {}),
    "jfzhang95.deeplabv3plus": ("deeplabv3plus_resnet101_jfzhang95", {}),
    "tensorflow.deeplabv3plus": ("deeplabv3plus_xception65", {}),
    "caffe.fcn": ("fcn16s_vgg16", {}),
    "caffe.fcn8s_atonce": ("fcn8s_atonce_vgg16", {}),
    "caffe.fcn_alexnet": ("fcn32s_alexnet", {}),
    "wkentaro.fcn": ("fcn8s_vgg16", {}),
    "dkfz.nonewnet": ("nonewnet", {}),
    "nnunet_v1.unet": ("nonewnet", {}),
    "nvlabs.segformer": ("segformer_b0", {}),
    "huggingface.segformer": ("segformer_b0", {}),
    "transformers5.segformer": ("segformer_b0", {}),
    "caffe.segnet": ("segnet", {}),
    "torchvision.fcn": ("fcn_resnet50", {"aux_loss": True}),
    "torchvision.deeplabv3": ("deeplabv3_resnet50", {}),
    "torchvision.lraspp": ("lraspp_mobilenet_v3_large", {}),
    "milesial.unet": ("unet", {}),
    "freiburg.unet": ("unet_phseg_v5", {}),
    "keras.unetplusplus": ("unetplusplus_ds", {}),
    "meta.upernet_convnext": ("upernet_convnext_tiny", {}),
    "mmseg.upernet_convnext": ("upernet_convnext_tiny", {}),
    "huggingface.upernet_convnext": ("upernet_convnext_tiny", {}),
    "huggingface.upernet_convnextv2": ("upernet_convnextv2", {}),
    "huggingface.upernet_swin": ("upernet_swin", {}),
    "huggingface.upernet_resnet": ("upernet_resnet", {}),
    "mlverse.upernet_convnext": ("upernet_convnext_tiny", {"output_norms": False}),
    "mlverse.fcn_convnext": ("fcn_convnext_tiny", {"output_norms": False}),
} | {
    f"smp.{decoder}": (decoder, {"encoder": "tu-vit_tiny_patch16_224" if decoder == "dpt" else "resnet18"})
    for decoder in DECODERS
}
"""Family: a network that its names are for."""


def test_families_have_names_of_their_own_and_a_file_each():
    names = [family.name for family in families()]
    assert len(names) == len(set(names))
    assert all("." in name for name in names)
    assert set(names) == set(FILES)


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_file_of_a_family_has_all_of_its_marks_and_of_any_other_family_fewer(family):
    origin = Origin(*FILES[family.name])
    to_theirs = family.to_theirs or functools.partial(smp_names, origin)
    theirs = to_theirs(outline(origin).state_dict())
    claims = {f: len(f.marks) for f in families() if f.matches(theirs) == len(f.marks)}
    assert claims.pop(family) > max(claims.values(), default=0)
    assert recognise(theirs) is family


def test_unknown_names(tmp_path, file):
    with pytest.raises(UnknownNameError, match="did you mean 'lraspp_mobilenet_v3_large'"):
        create_model("lraspp_mobilenet_v3")
    with pytest.raises(UnknownNameError, match=r"did you mean 'torchvision\.lraspp'"):
        convert_file(file, tmp_path / "x.safetensors", to="torchvision.lrasp")
    with pytest.raises(InputError, match="how this Conv2d was made is not known"):
        origin_of(nn.Conv2d(1, 1, 1))
    assert "lraspp_mobilenet_v3_large" in pixelwise.list_models("lraspp*")


def test_the_convert_command(file, tmp_path):
    run = [sys.executable, "-m", "pixelwise", "convert"]
    done = subprocess.run([*run, file, tmp_path / "y.safetensors"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lraspp_mobilenet_v3_large" in done.stdout
    again = subprocess.run([*run, file, tmp_path / "y.safetensors"], capture_output=True, text=True)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    np.savez(tmp_path / "z.npz", a=np.zeros(3))
    wrong = subprocess.run(
        [*run, tmp_path / "z.npz", tmp_path / "z.safetensors"], capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
    assert not (tmp_path / "z.safetensors").exists()
