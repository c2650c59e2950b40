"""`pixelwise.smp`: what its warnings, errors and files say of a model is so, name by name and number by number."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pixelwise import smp
from pixelwise.errors import SizeError, WeightsError


def small(classes: int = 2) -> smp.FPN:
    return smp.FPN("resnet18", encoder_weights=None, classes=classes)


def test_blocks_are_there_without_an_import_of_their_own(monkeypatch):
    monkeypatch.delattr(smp, "base", raising=False)
    assert isinstance(smp.base.Conv2dReLU(3, 4, 1), nn.Sequential)


def test_an_encoder_that_begins_at_the_size_of_the_image_has_no_feature_before_it():
    encoder = smp.encoders.get_encoder("vgg11").eval()
    assert encoder.out_channels == [64, 128, 256, 512, 512, 512]
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, 32, 64))
    assert [f.shape[1] for f in features] == encoder.out_channels
    assert [f.shape[2] for f in features] == [32, 16, 8, 4, 2, 1]
    assert encoder._is_torch_scriptable
    assert encoder._is_torch_exportable
    assert encoder._is_torch_compilable


def test_what_does_not_fit_is_named_and_counted_and_the_rest_is_loaded(tmp_path):
    saved = small()
    saved.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    opened = smp.from_pretrained(tmp_path)
    assert not any(part.training for part in opened.modules())
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_segmentation_channels": 64}))
    ours, theirs = ({name: t.shape for name, t in m.state_dict().items()} for m in (
        smp.FPN("resnet18", encoder_weights=None, classes=2, decoder_segmentation_channels=64), saved
    ))  # fmt: skip
    differ = {name for name in ours if ours[name] != theirs[name]}
    with pytest.raises(WeightsError, match=f"and {len(differ) - 1} more like it"):
        smp.from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="left as they are, because shapes differ: ") as warned:
        loaded = smp.from_pretrained(tmp_path, strict=False)
    assert len(str(warned[0].message).split(": ")[1].split(", ")) == len(differ)
    assert torch.equal(
        loaded.encoder.state_dict()["conv1.weight"], saved.encoder.state_dict()["conv1.weight"]
    )


def test_a_file_that_cannot_say_what_was_assigned_says_what_it_has_and_what_would_be_built(tmp_path):
    model = small()
    model.encoder.relu = nn.SiLU()
    with pytest.warns(UserWarning, match=r"it has .*SiLU.* where it is built anew with .*ReLU"):
        model.save_pretrained(tmp_path)


def test_a_file_of_manet_has_no_argument_that_smp_does_not_know(tmp_path):
    model = smp.MAnet(
        "resnet18", encoder_weights=None, decoder_channels=(16, 8, 8, 8, 8), decoder_pab_channels=8
    )
    model.save_pretrained(tmp_path)
    assert "position_attention" not in json.loads((tmp_path / "config.json").read_text())


def test_a_picture_of_the_size_that_is_asked_for_is_taken():
    model = small().eval()
    with pytest.raises(SizeError, match="got 65x100; pad it to 96x128"):
        model(torch.zeros(1, 3, 65, 100))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 96, 128)).shape == (1, 2, 96, 128)
