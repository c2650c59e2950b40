"""The unpadded U-Net: the sizes and counts of its figure, values written out by hand, and the overlap-tile strategy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from exported import largest_difference
from pixelwise.layers import Network
from pixelwise.models.unet_valid import UNetValid, mirror, tile_geometry, unet_phseg_v5, unet_valid

BOTH = pytest.mark.parametrize("variant", ["paper", "phseg_v5"])


def tiny(variant="paper", **options):
    torch.manual_seed(3)
    network = UNetValid(2, 3, variant=variant, width=2, **options).eval().double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # they begin at zero, which would hide a forgotten one
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def by_hand(weights, tile, variant):
    """The figure of the paper with sums over windows, and every crop taken from the two sizes that have to meet."""

    def conv(x, name):
        windows = x.unfold(2, 3, 1).unfold(3, 3, 1)
        y = torch.einsum("nihwab,oiab->nohw", windows, weights[f"{name}.weight"])
        return (y + weights[f"{name}.bias"][:, None, None]).clamp(min=0)

    def pool(x):
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))  # fails at odd sizes

    def up(x, name):  # stride equals size: each input pixel paints its own 2x2 block
        blocks = torch.einsum("nihw,ioab->nohawb", x, weights[f"{name}.weight"])
        return blocks.flatten(4, 5).flatten(2, 3) + weights[f"{name}.bias"][:, None, None]

    def centre(x, like):
        top, left = (x.shape[2] - like.shape[2]) / 2, (x.shape[3] - like.shape[3]) / 2
        assert top == int(top)
        assert left == int(left)
        return x[:, :, int(top) : int(top) + like.shape[2], int(left) : int(left) + like.shape[3]]

    levels, x = [], tile
    for i in range(5):
        x = conv(conv(pool(x) if i else x, f"down{i}.conv1"), f"down{i}.conv2")
        levels.append(x)
    for i in (3, 2, 1, 0):
        x = up(x, f"up{i}.up")
        if variant == "phseg_v5":
            x = x.clamp(min=0)
            x = torch.cat([x, centre(levels[i], x)], 1)
        else:
            x = torch.cat([centre(levels[i], x), x], 1)
        x = conv(conv(x, f"up{i}.pair.conv1"), f"up{i}.pair.conv2")
    return (
        torch.einsum("nihw,oi->nohw", x, weights["score.weight"][:, :, 0, 0])
        + weights["score.bias"][:, None, None]
    )


@pytest.mark.parametrize(
    ("in_channels", "num_classes", "variant", "parameters"),
    [
        (1, 2, "paper", 31_030_658),
        (1, 1, "paper", 31_030_593),
        (3, 2, "paper", 31_031_810),
        (3, 21, "paper", 31_033_045),
        (1, 2, "phseg_v5", 31_100_354),
    ],
)
def test_parameter_counts_are_those_of_the_paper_and_of_the_release(
    in_channels, num_classes, variant, parameters
):
    with torch.device("meta"):
        network = UNetValid(in_channels, num_classes, variant=variant)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_it_has_the_23_convolutions_that_the_paper_counts():
    with torch.device("meta"):
        network = UNetValid()
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    assert sum(isinstance(module, kinds) for module in network.modules()) == 23


def test_sizes_and_crops_are_those_of_figure_1():
    with torch.device("meta"):
        network = UNetValid(1, 2, width=4)
        sizes = {}
        for name, module in network.named_modules():
            module.register_forward_hook(lambda m, i, o, name=name: sizes.update({name: o.shape[-1]}))
        out = network.valid(torch.empty(1, 1, 572, 572))
    assert out.shape == (1, 2, 388, 388)
    assert [sizes[f"down{i}"] for i in range(5)] == [568, 280, 136, 64, 28]
    assert [sizes[f"up{i}.up"] for i in (3, 2, 1, 0)] == [56, 104, 200, 392]
    assert [sizes[f"up{i}"] for i in (3, 2, 1, 0)] == [52, 100, 196, 388]
    crops = tuple((sizes[f"down{i}"] - sizes[f"up{i}.up"]) // 2 for i in range(4))
    assert crops == tile_geometry(388).crops_px == (88, 40, 16, 4)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_the_tile_geometry_is_what_following_the_sizes_through_the_network_gives(levels):
    def follow(side):
        """Output and crops for an input side; None where a pooling would halve an odd size or nothing is left."""
        skips, crops = [], []
        for _ in range(levels):
            side -= 4
            if side < 2 or side % 2:
                return None
            skips.append(side)
            side //= 2
        side -= 4
        for skip in reversed(skips):
            side *= 2
            if side < 1:
                return None
            crops.insert(0, (skip - side) // 2)
            side -= 4
        return (side, tuple(crops)) if side > 0 else None

    valid = {side: found for side in range(1, 900) if (found := follow(side))}
    for wanted in range(1, 300):
        side = next(side for side, (output, _) in valid.items() if output >= wanted)
        output, crops = valid[side]
        tile = tile_geometry(wanted, levels=levels)
        assert (tile.input_px, tile.output_px, tile.crops_px) == (side, output, crops)
        assert 2 * tile.border_px == side - output
        assert tile.step_px <= output
        assert tile.step_px % 2**levels == 0
        assert tile.step_px + 2**levels > output
    if levels == 4:
        assert all(side % 16 == 12 and side >= 188 for side in valid)


@BOTH
@pytest.mark.parametrize("size_hw", [(188, 204), (220, 188)])
def test_raw_logits_equal_the_network_written_out_by_hand(variant, size_hw):
    network = tiny(variant, pad=False)
    tile = torch.randn(2, 2, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        logits = network(tile)["out"]
        torch.testing.assert_close(logits, by_hand(network.state_dict(), tile, variant))
    assert logits.shape == (2, 3, size_hw[0] - 184, size_hw[1] - 184)


@pytest.mark.parametrize("size_hw", [(67, 91), (5, 130), (1, 20), (1, 1)])
def test_an_image_of_any_size_is_continued_by_mirroring_and_the_logits_cut_to_it(size_hw):
    network = tiny()
    image = torch.randn(1, 2, *size_hw, dtype=torch.float64)
    sides = [tile_geometry(side) for side in size_hw]
    margins = [(92, tile.input_px - 92 - side) for side, tile in zip(size_hw, sides, strict=True)]
    mirrored = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), *margins], mode="reflect"))
    with torch.no_grad():
        expected = by_hand(network.state_dict(), mirrored, "paper")[:, :, : size_hw[0], : size_hw[1]]
        torch.testing.assert_close(network(image)["out"], expected)


def test_mirroring_is_torchs_reflection_where_that_exists():
    image = torch.rand(1, 2, 30, 50)
    assert torch.equal(mirror(image, 7, (9, 20)), F.pad(image, (7, 20, 7, 9), mode="reflect"))


@BOTH
def test_overlap_tiles_equal_the_whole_image(variant):
    network = tiny(variant)
    image = torch.randn(1, 2, 75, 50, dtype=torch.float64)
    tile = tile_geometry(30)
    assert (tile.input_px, tile.output_px, tile.step_px) == (220, 36, 32)
    mirrored = mirror(image, tile.border_px, (300, 300))
    pasted = torch.full((1, 3, 75, 50), torch.nan, dtype=torch.float64)
    with torch.no_grad():
        for top in range(0, 75, tile.step_px):
            for left in range(0, 50, tile.step_px):
                cut = mirrored[:, :, top : top + tile.input_px, left : left + tile.input_px]
                here = pasted[:, :, top : top + tile.output_px, left : left + tile.output_px]
                here[:] = network.valid(cut)[:, :, : here.shape[2], : here.shape[3]]
        torch.testing.assert_close(pasted, network(image)["out"], rtol=1e-12, atol=1e-12)


def test_tiles_shifted_by_less_than_the_stride_would_differ_which_is_why_there_is_a_step():
    network = tiny()
    mirrored = torch.randn(1, 2, 240, 240, dtype=torch.float64)
    with torch.no_grad():
        whole = network.valid(mirrored[:, :, :236, :236])  # 52 pixels of output
        shifted = network.valid(mirrored[:, :, 16:236, 16:236])
        askew = network.valid(mirrored[:, :, 4:192, 4:192])
    torch.testing.assert_close(shifted, whole[:, :, 16:, 16:], rtol=1e-12, atol=1e-12)
    assert (askew - whole[:, :, 4:8, 4:8]).abs().max() > 1e-3


@BOTH
def test_dropout_acts_on_the_copy_of_level_3_only_in_the_release(variant):
    network = tiny(variant, dropout=1.0).train()  # everything is dropped
    joined = []
    network.up3.pair.register_forward_pre_hook(lambda module, inputs: joined.append(inputs[0]))
    network.valid(torch.randn(1, 2, 188, 188, dtype=torch.float64))
    copied = joined[0][:, :16] if variant == "paper" else joined[0][:, 16:]
    assert bool((copied == 0).all()) == (variant == "phseg_v5")


def test_coarse_logits_are_the_logits_as_the_stride_is_one():
    network = tiny()
    image = torch.randn(1, 2, 30, 17, dtype=torch.float64)
    assert isinstance(network, Network)
    assert network.stride == 1
    with torch.no_grad():
        assert torch.equal(network(image)["out"], network.coarse(image))


@BOTH
def test_gradients_reach_every_parameter_at_batch_size_1(variant):
    network = tiny(variant, dropout=0.0).train()
    network(torch.randn(1, 2, 40, 30, dtype=torch.float64))["out"].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_weights_begin_with_a_variance_of_two_over_the_number_of_incoming_values():
    network = UNetValid(width=16)
    assert network.down3.conv2.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert network.up3.up.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert not network.down3.conv2.bias.any()


def test_what_cannot_work_is_refused_in_one_sentence():
    raw = tiny(pad=False)
    with pytest.raises(ValueError, match=r"16 i \+ 12.*got 200x188; pad to 204x188"):
        raw(torch.rand(1, 2, 200, 188, dtype=torch.float64))
    with pytest.raises(ValueError, match="got 100x572; pad to 188x572"):
        raw(torch.rand(1, 2, 100, 572, dtype=torch.float64))
    with pytest.raises(ValueError, match="variant must be one of 'paper', 'phseg_v5'"):
        UNetValid(variant="v5")
    with pytest.raises(ValueError, match="at least 1"):
        tile_geometry(0)
    with pytest.raises(TypeError, match="'dropout'"):
        unet_valid(dropuot=0.1)


@pytest.mark.parametrize("build", [unet_valid, unet_phseg_v5])
def test_builders_name_their_network_and_take_other_channels_and_classes(build):
    for in_channels in (1, 3, 5):
        network = build(num_classes=4, in_channels=in_channels, width=2).eval()
        assert network.origin.model == build.__name__
        with torch.no_grad():
            assert network(torch.rand(1, in_channels, 9, 33))["out"].shape == (1, 4, 9, 33)


@pytest.mark.slow
def test_the_export_equals_the_network_at_other_sizes():
    network = UNetValid(3, 4, variant="phseg_v5", width=2)
    assert largest_difference(network, (2, 3, 64, 90), (1, 3, 97, 130), (3, 3, 20, 41), (1, 3, 1, 5)) < 1e-4
