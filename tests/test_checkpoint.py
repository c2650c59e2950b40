"""Checkpoints are recognised by their keys, loaded whole or not at all, and written back."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import pixelwise
from pixelwise import create_model, from_checkpoint, load_checkpoint
from pixelwise.checkpoints.loading import families
from pixelwise.checkpoints.saving import convert_file
from pixelwise.errors import InputError, UnknownNameError, WeightsError
from pixelwise.weights.origin import origin_of


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


def test_families_have_names_of_their_own_and_marks_that_exclude_each_other():
    names = [family.name for family in families()]
    assert len(names) == len(set(names))
    assert all("." in name for name in names)


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
