"""U-Net++: the counts of its release, values written out by hand, and the pruning that deep supervision buys."""

from __future__ import annotations

import pytest
import torch

from exported import largest_difference
from pixelwise.layers import Network
from pixelwise.models.unetplusplus import UNetPlusPlus, unetplusplus, unetplusplus_ds

FILTERS = (2, 3, 4, 5, 6)  # all different, so that a wrong order of joining cannot fit by chance


def tiny(**options):
    torch.manual_seed(5)
    network = UNetPlusPlus(3, 2, filters=FILTERS, **options).eval().double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # they begin at zero, which would hide a forgotten one
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def by_hand(weights, image):
    """The logits of X(0, 1) .. X(0, 4): the paper's recursion, read literally, no node computed twice."""

    def conv(x, name):
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        windows = padded.unfold(2, 3, 1).unfold(3, 3, 1)
        y = torch.einsum("nihwab,oiab->nohw", windows, weights[f"{name}.weight"])
        return (y + weights[f"{name}.bias"][:, None, None]).clamp(min=0)

    def half(x):
        h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        return x[:, :, :h, :w].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    def up(x, name, like):  # stride equals size: each input pixel paints its own 2x2 block
        blocks = torch.einsum("nihw,ioab->nohawb", x, weights[f"{name}.weight"])
        painted = blocks.flatten(4, 5).flatten(2, 3) + weights[f"{name}.bias"][:, None, None]
        y = torch.zeros_like(like)
        y[:, :, : painted.shape[2], : painted.shape[3]] = painted
        return y

    known = {}

    def node(i, j):
        if (i, j) not in known:
            name = f"nodes.x{i}{j}"
            if j == 0:
                x = half(node(i - 1, 0)) if i else image
                known[i, j] = conv(conv(x, f"{name}.conv1"), f"{name}.conv2")
            else:
                left = [node(i, column) for column in range(j)]
                x = torch.cat([up(node(i + 1, j - 1), f"{name}.up", left[0]), *left], 1)
                known[i, j] = conv(conv(x, f"{name}.unit.conv1"), f"{name}.unit.conv2")
        return known[i, j]

    heads = ((node(0, j), f"heads.{j}") for j in (1, 2, 3, 4))
    return [
        torch.einsum("nihw,oi->nohw", x, weights[f"{name}.weight"][:, :, 0, 0])
        + weights[f"{name}.bias"][:, None, None]
        for x, name in heads
    ]


@pytest.mark.parametrize(
    ("in_channels", "plain", "supervised", "pruned"),
    [
        (1, 9_041_601, 9_041_700, (100_961, 511_105, 2_204_961, 9_041_601)),
        (3, 9_042_177, 9_042_276, (101_537, 511_681, 2_205_537, 9_042_177)),
    ],
)
def test_parameter_counts_are_those_of_the_release(in_channels, plain, supervised, pruned):
    def count(network):
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        assert count(UNetPlusPlus(in_channels)) == plain
        network = UNetPlusPlus(in_channels, deep_supervision=True)
        assert count(network) == supervised
        assert tuple(count(network.pruned(depth)) for depth in (1, 2, 3, 4)) == pruned


@pytest.mark.parametrize("size_hw", [(16, 32), (37, 51)])
def test_heads_equal_the_network_written_out_by_hand(size_hw):
    network = tiny(deep_supervision=True, mode="fast")
    image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        logits = network(image)
        expected = by_hand(network.state_dict(), image)
    assert list(logits) == ["out", "aux1", "aux2", "aux3"]
    for name, values in zip(("aux1", "aux2", "aux3", "out"), expected, strict=True):
        torch.testing.assert_close(logits[name], values)


@pytest.mark.parametrize("probabilities", ["sigmoid", "softmax"])
def test_accurate_mode_gives_the_mean_of_the_heads_probabilities(probabilities):
    network = tiny(deep_supervision=True, probabilities=probabilities)
    act = torch.sigmoid if probabilities == "sigmoid" else lambda logits: logits.softmax(1)
    image = 30 * torch.randn(1, 3, 24, 17, dtype=torch.float64)  # large, so that heads disagree
    with torch.no_grad():
        logits = network(image)
    mean = sum(act(logits[f"aux{j}"]) for j in (1, 2, 3, 4)) / 4
    torch.testing.assert_close(act(logits["out"]), mean)
    assert (logits["aux1"] - logits["aux4"]).abs().max() > 1


def test_accurate_logits_stay_finite_where_sigmoids_saturate():
    network = tiny(deep_supervision=True).float()
    with torch.no_grad():
        logits = network(1e4 * torch.randn(1, 3, 16, 16))
    assert logits["aux4"].abs().max() > 200
    assert logits["out"].isfinite().all()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_pruned_to_a_depth_it_gives_that_heads_logits(depth):
    network = tiny(deep_supervision=True)
    image = torch.randn(1, 3, 35, 48, dtype=torch.float64)
    pruned = network.pruned(depth)
    with torch.no_grad():
        logits = pruned(image)
        assert list(logits) == ["out"]
        assert torch.equal(logits["out"], network(image)[f"aux{depth}"])
        pruned.heads[str(depth)].weight.zero_()  # a copy: the whole network stays as it was
        assert network.heads[str(depth)].weight.any()


def test_a_network_without_deep_supervision_has_no_head_to_be_pruned_to():
    network = tiny()
    with pytest.raises(ValueError, match=r"one of 4, which have heads, got 2.*deep_supervision=True"):
        network.pruned(2)
    assert network.pruned(4).depth == 4


def test_the_plain_network_is_the_supervised_ones_deepest_head():
    plain, supervised = tiny(), tiny(deep_supervision=True, mode="fast")
    shared = {key: value for key, value in supervised.state_dict().items() if key in plain.state_dict()}
    plain.load_state_dict(shared, strict=True)
    image = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(plain(image)["out"], supervised(image)["out"])


def test_coarse_logits_are_the_logits_as_the_stride_is_one():
    network = tiny(deep_supervision=True)
    image = torch.randn(1, 3, 33, 18, dtype=torch.float64)
    assert isinstance(network, Network)
    with torch.no_grad():
        assert torch.equal(network(image)["out"], network.coarse(image))


@pytest.mark.parametrize("options", [{}, {"deep_supervision": True}])
def test_gradients_reach_every_parameter_at_batch_size_1(options):
    network = tiny(dropout=0.0, **options).train()
    loss = sum(value.square().mean() for value in network(torch.randn(1, 3, 32, 40).double()).values())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_convolutions_begin_as_keras_begins_them():
    network = UNetPlusPlus(filters=(16, 32, 64))
    weight = network.nodes["x20"].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert weight.abs().max() <= 2 * (2 / (9 * 64)) ** 0.5 / 0.8796 + 1e-6
    up = network.nodes["x11"].up.weight
    assert up.abs().max().item() == pytest.approx((6 / (4 * (64 + 32))) ** 0.5, rel=0.02)


def test_what_cannot_work_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="at least 16 pixels on each side, got 15x40; pad to 16x40"):
        tiny()(torch.rand(1, 3, 15, 40).double())
    assert tiny(deep_supervision=True).pruned(1)(torch.rand(1, 3, 3, 2).double())["out"].shape == (1, 2, 3, 2)
    with pytest.raises(ValueError, match="'accurate' or 'fast'"):
        UNetPlusPlus(mode="quick")
    with pytest.raises(ValueError, match="'sigmoid' or 'softmax'"):
        UNetPlusPlus(probabilities="relu")
    with pytest.raises(TypeError, match="'filters'"):
        unetplusplus(fliters=FILTERS)


@pytest.mark.parametrize("build", [unetplusplus, unetplusplus_ds])
def test_builders_name_their_network_and_take_other_channels_and_classes(build):
    for in_channels in (1, 3, 5):
        network = build(num_classes=4, in_channels=in_channels, filters=FILTERS).eval()
        assert network.origin.model == build.__name__
        with torch.no_grad():
            assert network(torch.rand(1, in_channels, 19, 33))["out"].shape == (1, 4, 19, 33)


@pytest.mark.slow
def test_the_export_equals_the_network_at_other_sizes():
    network = UNetPlusPlus(3, 2, filters=FILTERS, deep_supervision=True)
    assert largest_difference(network, (2, 3, 64, 80), (1, 3, 97, 130), (3, 3, 16, 41)) < 1e-4
