"""Classes of one's own over pixelwise.smp, as people derive them from SMP's."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import pytest
import segmentation_models_pytorch as theirs
import torch
import torchvision
from torch import nn

import pixelwise.smp as ours
from pixelwise.errors import SizeError

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def derived(smp):
    """The same script over either library: a U-Net with a layer behind it."""

    class Refined(smp.Unet):
        def __init__(self, classes):
            super().__init__(
                "resnet18", encoder_weights=None, decoder_channels=(32, 16, 16, 8, 8), classes=classes
            )
            self.refine = nn.Conv2d(classes, classes, 1)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.refine(super().forward(x)) * self.scale

    return Refined(3).eval()


def built(smp):
    """The same script over either: a model of parts."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(512, 8, 1)

        def forward(self, features):
            return self.conv(features[-1])

    class Own(smp.base.SegmentationModel):
        def __init__(self):
            super().__init__()
            self.encoder = smp.encoders.get_encoder("resnet18", weights=None)
            self.decoder = Last()
            self.segmentation_head = smp.base.SegmentationHead(8, 2, upsampling=32)
            self.classification_head = smp.base.ClassificationHead(512, 4)
            self.name = "own"
            self.initialize()

    return Own().eval()


def test_a_class_of_ones_own_has_smps_names_and_numbers():
    model, reference = derived(ours), derived(theirs)
    assert model.state_dict().keys() == reference.state_dict().keys()
    model.load_state_dict(reference.state_dict())
    assert torch.allclose(model(IMAGE), reference(IMAGE), atol=1e-5)
    reference.load_state_dict(model.state_dict())
    assert str(inspect.signature(type(model))) == "(classes)"
    assert model.name == reference.name == "u-resnet18"


def test_what_a_model_was_given_besides_its_parts_is_saved_and_asked_for():
    model = ours.FPN("resnet18", encoder_weights=None)
    model.more = nn.Linear(2, 2)
    state = model.state_dict()
    assert torch.equal(state["more.weight"], model.more.weight)
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "more.weight"'):
        ours.FPN("resnet18", encoder_weights=None).load_state_dict(state)
    del state["more.bias"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "more.bias"'):
        model.load_state_dict(state)


def test_a_model_of_parts_of_ones_own():
    model, reference = built(ours), built(theirs)
    model.load_state_dict(reference.state_dict())
    for one, other in zip(model.predict(IMAGE), reference.predict(IMAGE), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    with pytest.raises(SizeError, match="multiples of 32, got 65x64; pad it to 96x64"):
        model(torch.rand(1, 3, 65, 64))
    model.freeze_encoder()
    trained = {name for name, p in model.train().named_parameters() if p.requires_grad}
    assert trained
    assert not any(name.startswith("encoder.") for name in trained)
    model.unfreeze_encoder()
    assert all(p.requires_grad for p in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(model.eval(), IMAGE)(IMAGE)
    assert torch.allclose(traced[0], model(IMAGE)[0], atol=1e-6)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(IMAGE)[1], model(IMAGE)[1])


def test_initialize_draws_as_smp_does():
    def spreads(smp):
        torch.manual_seed(0)
        model = built(smp)
        return [float(m.weight.detach().std()) for m in (model.decoder.conv, model.segmentation_head[0])]

    for one, other in zip(spreads(ours), spreads(theirs), strict=True):
        assert one == pytest.approx(other, rel=0.15)


def test_an_empty_class_is_saved_as_what_it_is_derived_from(tmp_path):
    class Mine(ours.DeepLabV3Plus): ...

    model = Mine("resnet18", encoder_weights=None).eval()
    model.save_pretrained(tmp_path)
    again = theirs.from_pretrained(tmp_path).eval()
    assert type(again).__name__ == "DeepLabV3Plus"
    assert torch.allclose(model(IMAGE), again(IMAGE), atol=1e-5)


def test_an_encoder_takes_the_weights_of_a_classifier_as_smps_does():
    whole = torchvision.models.resnet18()
    for encoder in (
        ours.Unet("resnet18", encoder_weights=None).encoder,
        ours.encoders.get_encoder("resnet18", weights=None),
    ):
        encoder.load_state_dict(whole.state_dict())
        assert torch.equal(encoder.state_dict()["layer4.1.conv2.weight"], whole.layer4[1].conv2.weight)
        with pytest.raises(RuntimeError, match="surplus"):
            encoder.load_state_dict({**whole.state_dict(), "surplus.weight": torch.ones(1)})


def test_stages_that_pspnet_leaves_out_can_be_trained_by_whoever_takes_them_from_the_file():
    model, reference = (smp.PSPNet("resnet18", encoder_weights=None) for smp in (ours, theirs))
    state, wanted = model.state_dict(), reference.state_dict()
    for key in ("encoder.layer3.0.conv1.weight", "encoder.layer4.1.conv2.weight"):
        assert float(state[key].std()) == pytest.approx(float(wanted[key].std()), rel=0.05)
    assert torch.equal(state["encoder.layer4.0.bn1.running_var"], torch.ones(512))
    assert torch.equal(state["encoder.layer4.0.bn1.weight"], torch.ones(512))
    assert not state["encoder.layer4.0.bn1.bias"].any()
    assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())  # the same each time


@pytest.mark.parametrize("name", ["Unet", "PAN", "FPN", "Linknet", "MAnet", "DeepLabV3Plus", "UPerNet"])
def test_an_optimizers_state_goes_over_for_the_order_of_parameters_is_smps(name):
    model, reference = (getattr(smp, name)("resnet18", encoder_weights=None) for smp in (ours, theirs))
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in reference.named_parameters()]


def test_the_parts_of_the_package_are_listed():
    assert {"losses", "metrics", "base", "encoders", "Unet"} <= set(dir(ours))
    assert pickle.loads(pickle.dumps(ours.base.SegmentationModel)) is ours.SegmentationModel
