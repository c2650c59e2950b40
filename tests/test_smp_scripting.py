"""`torch.jit.script` takes the models of `pixelwise.smp` that SMP's own class can be scripted of."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from pixelwise import smp
from pixelwise.encoders import create_encoder

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")  # PyTorch calls it deprecated

STEPS = {"decoder_channels": (8, 8, 8, 8, 4)}
SMALL = {
    "Unet": {**STEPS, "decoder_attention_type": "scse"},
    "MAnet": {**STEPS, "decoder_pab_channels": 4},
    "Linknet": {},
    "FPN": {"decoder_pyramid_channels": 8, "decoder_segmentation_channels": 32},
    "PSPNet": {"psp_out_channels": 8},
    "PAN": {"decoder_channels": 4},
    "DeepLabV3": {"decoder_channels": 8},
    "DeepLabV3Plus": {"decoder_channels": 8},
    "UPerNet": {"decoder_channels": 8},
    "Segformer": {"decoder_segmentation_channels": 8},
}
DAILY = ("Unet", "FPN")


@pytest.mark.parametrize(
    "kind", [kind if kind in DAILY else pytest.param(kind, marks=pytest.mark.slow) for kind in SMALL]
)
def test_a_scripted_model_gives_the_masks_and_labels_of_the_model_and_is_saved(kind):
    torch.manual_seed(0)
    encoder = "tu-test_resnet.r160_in1k" if kind == "FPN" else "resnet18"
    more = {"activation": "sigmoid", "aux_params": {"classes": 2}, **SMALL[kind]}
    model = getattr(smp, kind)(encoder, encoder_weights=None, classes=3, **more).eval()
    names, encoder = list(model.state_dict()), model.encoder
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    for h, w in (
        ((128, 96), (64, 128)) if kind != "PAN" else ((128, 160), (256, 128))
    ):  # no size is kept in it
        image = torch.rand(1, 3, h, w)
        with torch.inference_mode():
            for got, expected in zip(scripted(image), model(image), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    # The model is what it was
    assert list(model.state_dict()) == names
    assert model.encoder is encoder


def test_a_scripted_unet_trains_the_models_own_tensors_on_any_size():
    torch.manual_seed(0)
    model = smp.Unet("tu-test_resnet.r160_in1k", encoder_weights=None, **STEPS).train()
    scripted = torch.jit.script(model)
    assert scripted.training
    mask = scripted(torch.rand(2, 3, 70, 99))
    assert mask.shape == (2, 1, 70, 99)
    mask.mean().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())


def test_a_decoder_takes_smps_list_alone_and_says_when_the_image_is_missing():
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, encoder_depth=4, decoder_channels=(8, 8, 8, 4)).eval()
    image = torch.rand(1, 3, 64, 96)
    features = model.encoder(image)
    assert torch.equal(features[0], image)
    assert model.encoder.out_channels == [3, 64, 64, 128, 256] == [f.shape[1] for f in features]
    assert model.encoder.output_stride == 16
    decoded = model.decoder(features)
    assert torch.equal(model.segmentation_head(decoded), model(image))
    assert torch.equal(model.decoder(features[1:], (64, 96)), decoded)
    with pytest.raises(ValueError, match=r"call decoder\(features, \(h, w\)\)"):
        model.decoder(features[1:])
    # An encoder of this package gives features alone, and the model knows
    model.encoder = create_encoder("resnet18", depth=4)
    assert isinstance(model.encoder, nn.Module)
    assert model.eval()(image).shape == (1, 1, 64, 96)
