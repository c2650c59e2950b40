"""U-Net: counts from the literature, values against the figure of the paper computed by hand."""

import pytest
import torch
from torch.nn import functional as F

from pixelwise.layers import Network
from pixelwise.models.unet import UNet


def by_hand(weights, image, bilinear):
    """The network written out with functions and the state dict alone."""

    def double_conv(x, name):
        for i in (0, 3):
            x = F.conv2d(x, weights[f"{name}.{i}.weight"], padding=1)
            mean, var, scale, shift = (
                weights[f"{name}.{i + 1}.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)
        return x

    features = [double_conv(image, "inc.double_conv")]
    for level in (1, 2, 3, 4):
        x = features[-1]
        h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        x = x[:, :, :h, :w].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
        features.append(double_conv(x, f"down{level}.maxpool_conv.1.double_conv"))
    x = features.pop()
    for level in (1, 2, 3, 4):
        skip = features.pop()
        if bilinear:
            x = F.interpolate(x, (x.shape[2] * 2, x.shape[3] * 2), mode="bilinear", align_corners=True)
        else:  # stride equals size: each input pixel paints its own 2x2 block
            blocks = torch.einsum("nihw,ioab->nohawb", x, weights[f"up{level}.up.weight"])
            x = blocks.flatten(4, 5).flatten(2, 3) + weights[f"up{level}.up.bias"][:, None, None]
        padded = x.new_zeros(*x.shape[:2], *skip.shape[2:])
        top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
        padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
        x = double_conv(torch.cat([skip, padded], 1), f"up{level}.conv.double_conv")
    return (
        torch.einsum("nihw,oi->nohw", x, weights["outc.conv.weight"][:, :, 0, 0])
        + weights["outc.conv.bias"][:, None, None]
    )


def randomised(network):
    """Batch norms as after training, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if "running_mean" in name or name.endswith(("1.bias", "4.bias")):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
        if "running_var" in name or (value.ndim == 1 and name.endswith("weight")):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network.eval()


@pytest.mark.parametrize(
    ("in_channels", "num_classes", "bilinear", "parameters", "keys"),
    [
        (3, 2, False, 31_037_698, 118),
        (3, 2, True, 17_263_042, 110),
        (3, 1, False, 31_037_633, 118),
        (1, 2, False, 31_036_546, 118),
    ],
)
def test_parameter_counts_are_those_of_milesial(in_channels, num_classes, bilinear, parameters, keys):
    with torch.device("meta"):
        network = UNet(in_channels, num_classes, bilinear=bilinear)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == keys


def test_keys_are_those_of_milesial():
    keys = UNet(width=4).state_dict().keys()
    expected = ("inc.double_conv.0.weight", "down4.maxpool_conv.1.double_conv.4.running_var", "up1.up.bias",
                "up4.conv.double_conv.3.weight", "outc.conv.bias")  # fmt: skip
    assert set(expected) <= set(keys)


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("size_hw", [(16, 16), (33, 50), (47, 31)])
def test_logits_equal_the_network_written_out_by_hand(bilinear, size_hw):
    torch.manual_seed(1)
    network = randomised(UNet(3, 5, width=4, bilinear=bilinear)).double()
    image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image)["out"], by_hand(network.state_dict(), image, bilinear))


def test_coarse_logits_are_the_logits_as_the_stride_is_one():
    network = randomised(UNet(width=4))
    image = torch.randn(1, 3, 30, 17)
    assert isinstance(network, Network)
    assert network.stride == 1
    assert torch.equal(network(image)["out"], network.coarse(image))
    assert network.coarse(image).shape == (1, network.num_classes, 30, 17)


def test_gradients_reach_every_parameter_and_the_skips_carry_detail():
    network = UNet(width=4).train()
    network(torch.randn(2, 3, 32, 32))["out"].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_what_cannot_work_is_refused_in_one_sentence():
    network = UNet(width=2)
    with pytest.raises(ValueError, match="at least 16 pixels on each side, got 15x40; pad to 16x40"):
        network.eval()(torch.rand(1, 3, 15, 40))
    assert network(torch.rand(1, 3, 16, 16))["out"].shape == (1, 2, 16, 16)
    with pytest.raises(ValueError, match="one value per channel"):
        network.train()(torch.rand(1, 3, 16, 31))
    assert network(torch.rand(1, 3, 16, 32))["out"].shape == (1, 2, 16, 32)
