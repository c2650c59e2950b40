"""No New-Net: the counts of its release, values written out by hand, and what the regions of BraTS decode to."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from exported import largest_difference
from pixelwise.layers import Network
from pixelwise.models.nonewnet import (
    NoNewNet,
    filters,
    labels_to_regions,
    nonewnet,
    nonewnet_2d,
    nonewnet_softmax,
    regions_to_labels,
)


def tiny(dims=3, **options):
    torch.manual_seed(7)
    network = NoNewNet(2, 3, dims=dims, width=2, cap=12, **options).eval().double()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:  # biases and norms as after training
            torch.nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.3)
    return network


def image_of(dims, *, n=1):
    return torch.randn(n, 2, *((48, 33) if dims == 2 else (16, 32, 18)), dtype=torch.float64)


def by_hand(weights, image):
    """Features of the decoder, coarsest first: norms, pooling and joining spelled out; any number of dimensions."""
    dims = image.ndim - 2
    axes = tuple(range(2, 2 + dims))
    spread = (slice(None), *(None,) * dims)

    def block(x, name):
        weight = weights[f"{name}.conv.weight"]
        windows = F.pad(x, (1, 1) * dims)
        for axis in axes:
            windows = windows.unfold(axis, 3, 1)
        x = torch.einsum({2: "nihwab,oiab->nohw", 3: "nidhwabc,oiabc->nodhw"}[dims], windows, weight)
        x = x + weights[f"{name}.conv.bias"][spread]
        x = (x - x.mean(axes, keepdim=True)) / (x.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()
        x = x * weights[f"{name}.norm.weight"][spread] + weights[f"{name}.norm.bias"][spread]
        return torch.where(x > 0, x, 0.01 * x)

    def half(x):
        for axis in axes:
            x = x.narrow(axis, 0, x.shape[axis] // 2 * 2).unflatten(axis, (-1, 2)).amax(axis + 1)
        return x

    def enlarge(x, like):
        """Linear along one axis after the other, pixel centres at halves, the border repeated."""
        for axis in axes:
            there, here = like.shape[axis], x.shape[axis]
            place = ((torch.arange(there, dtype=x.dtype) + 0.5) * (here / there) - 0.5).clamp(min=0)
            low = place.long().clamp(max=here - 1)
            high = (low + 1).clamp(max=here - 1)
            part = (place - low).reshape(-1, *(1,) * (x.ndim - axis - 1))
            x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part
        return x

    skips, x = [], image
    for level in range(4):
        x = block(block(x, f"down.{level}.0"), f"down.{level}.1")
        skips.append(x)
        x = half(x)
    x = block(block(x, "bottom.0"), "bottom.1")
    decoded = []
    for level in range(4):
        x = torch.cat([enlarge(x, skips[-1]), skips.pop()], 1)
        x = block(block(x, f"up.{level}.0"), f"up.{level}.1")
        decoded.append(x)
    return decoded, enlarge


def head(features, weight):
    return torch.einsum("ni...,oi->no...", features, weight.flatten(1))


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"deep_supervision": True, "cotraining_classes": 3}, 12_420_330),
        ({"deep_supervision": True}, 12_419_610),
        ({}, 12_418_980),
        ({"num_classes": 4}, 12_419_010),
        ({"cap": 480}, 14_493_060),
        ({"cap": 480, "num_classes": 4}, 14_493_090),
    ],
)
def test_parameter_counts_are_those_of_the_release(arguments, parameters):
    with torch.device("meta"):
        network = NoNewNet(**arguments)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("dims", "cap", "bottom"), [(3, None, 320), (3, 480, 480), (2, None, 480), (2, 100, 100)]
)
def test_filters_double_up_to_the_cap_and_narrow_before_each_up_sampling(dims, cap, bottom):
    with torch.device("meta"):
        network = NoNewNet(dims=dims, cap=cap)
    widths = [min(30 * 2**level, bottom) for level in range(5)]
    shapes = {name: tuple(p.shape[:2]) for name, p in network.named_parameters() if "conv.weight" in name}
    for level in range(4):
        before = widths[level - 1] if level else 4
        assert shapes[f"down.{level}.0.conv.weight"] == (widths[level], before)
        assert shapes[f"down.{level}.1.conv.weight"] == (widths[level], widths[level])
    assert shapes["bottom.0.conv.weight"] == (bottom, widths[3])
    assert shapes["bottom.1.conv.weight"] == (widths[3], bottom)
    for level, (here, above) in enumerate(((3, 2), (2, 1), (1, 0), (0, 0))):
        assert shapes[f"up.{level}.0.conv.weight"] == (widths[here], 2 * widths[here])
        assert shapes[f"up.{level}.1.conv.weight"] == (widths[above], widths[here])
    assert filters(30, 4, bottom) == tuple(widths)


@pytest.mark.parametrize("dims", [2, 3])
def test_logits_equal_the_network_written_out_by_hand(dims):
    network = tiny(dims, deep_supervision=True, cotraining_classes=2)
    image = image_of(dims, n=2)
    with torch.no_grad():
        logits = network(image)
        weights = network.state_dict()
        decoded, enlarge = by_hand(weights, image)
        names = (("out", "aux_cotraining"), *((f"aux{i}", f"aux{i}_cotraining") for i in (1, 2, 3)))
        assert list(logits) == [name for pair in names for name in pair]
        for depth, (features, pair) in enumerate(zip(reversed(decoded), names, strict=True)):
            for task, name in enumerate(pair):
                small = head(features, weights[f"heads.{depth}.{task}.weight"])
                expected = enlarge(small, image) if depth else small
                torch.testing.assert_close(logits[name], expected, rtol=1e-6, atol=1e-8)
        assert torch.equal(network.coarse(image), logits["out"])


def test_it_is_a_network_whose_coarse_logits_have_the_size_of_the_image():
    network = tiny(2)
    assert isinstance(network, Network)
    assert network.stride == 1
    with torch.no_grad():
        assert list(network(image_of(2))) == ["out"]
        assert network.coarse(image_of(2)).shape == (1, 3, 48, 33)


@pytest.mark.parametrize("options", [{}, {"deep_supervision": True, "cotraining_classes": 2}])
def test_gradients_reach_every_parameter_at_batch_size_1(options):
    network = tiny(**options).train()
    sum(value.square().mean() for value in network(image_of(3)).values()).backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached


def test_convolutions_begin_as_in_the_release():
    network = NoNewNet(dims=2, width=16)
    assert network.down[3][1].conv.weight.std().item() == pytest.approx(
        (2 / (1 + 0.01**2) / (9 * 128)) ** 0.5, rel=0.02
    )
    assert not network.down[3][1].conv.bias.any()


def test_regions_decode_to_brats_codes_the_smaller_painted_over_the_larger():
    cases = {  # whole tumour, tumour core, enhancing -> code
        (0.1, 0.2, 0.3): 0,
        (0.9, 0.2, 0.3): 2,  # edema
        (0.9, 0.8, 0.3): 1,  # necrosis
        (0.9, 0.8, 0.7): 4,  # enhancing
        (0.1, 0.8, 0.3): 1,  # a core outside the whole counts all the same
        (0.1, 0.2, 0.7): 4,
        (0.5, 0.5, 0.5): 0,  # more than a half, not a half
    }
    probabilities = torch.tensor(list(cases)).T[None, :, :, None]  # (1, 3, 7, 1)
    labels = regions_to_labels(probabilities)
    assert labels.dtype == torch.uint8
    assert labels.flatten().tolist() == list(cases.values())


def test_labels_become_the_regions_that_decode_to_them():
    labels = torch.tensor([[[0, 1], [2, 4]]])
    regions = labels_to_regions(labels)
    assert regions[0, :, 0, 1].tolist() == [1, 1, 0]
    assert regions[0, :, 1, 0].tolist() == [1, 0, 0]
    assert regions[0, :, 1, 1].tolist() == [1, 1, 1]
    assert torch.equal(regions_to_labels(regions).long(), labels)


def test_a_network_decodes_its_logits_as_it_was_trained():
    regions = torch.tensor([3.0, 1.0, -1.0]).reshape(1, 3, 1, 1, 1)
    assert nonewnet(width=1).labels(regions).item() == 1
    for winner, code in enumerate((0, 2, 4, 1)):
        logits = torch.nn.functional.one_hot(torch.tensor([winner]), 4).float().reshape(1, 4, 1, 1, 1)
        assert nonewnet_softmax(width=1).labels(logits).item() == code
    with pytest.raises(ValueError, match="got 3 logits"):
        nonewnet_softmax(width=1).labels(regions)
    with pytest.raises(ValueError, match="whole tumour, tumour core, enhancing tumour, got"):
        regions_to_labels(torch.rand(1, 4, 2, 2))


def test_what_cannot_work_is_refused_in_one_sentence():
    for shape, better in (((16, 31, 17), "16x31x32"), ((15, 40, 40), "16x40x40")):
        with pytest.raises(ValueError, match=f"got {'x'.join(map(str, shape))}; pad to {better}"):
            tiny()(torch.rand(1, 2, *shape).double())
    assert tiny()(torch.rand(1, 2, 16, 31, 32).double())["out"].shape == (1, 3, 16, 31, 32)
    with pytest.raises(ValueError, match="dims must be 2 or 3"):
        NoNewNet(dims=1)
    with pytest.raises(ValueError, match="'sigmoid' or 'softmax'"):
        NoNewNet(probabilities="dice")
    with pytest.raises(TypeError, match="'deep_supervision'"):
        nonewnet(deep_supervison=True)


@pytest.mark.parametrize("build", [nonewnet, nonewnet_softmax, nonewnet_2d])
def test_builders_name_their_network_and_take_other_channels_and_classes(build):
    size = (33, 40) if build is nonewnet_2d else (17, 33, 20)
    for in_channels in (1, 3, 5):
        network = build(num_classes=6, in_channels=in_channels, width=2).eval()
        assert network.origin.model == build.__name__
        with torch.no_grad():
            assert network(torch.rand(1, in_channels, *size))["out"].shape == (1, 6, *size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dims", "traced_at", "shapes"),
    [
        (2, (2, 2, 64, 80), [(1, 2, 97, 130), (3, 2, 20, 41)]),
        (3, (2, 2, 32, 48, 64), [(1, 2, 33, 40, 50), (2, 2, 17, 64, 35)]),
    ],
)
def test_the_export_equals_the_network_at_other_sizes(dims, traced_at, shapes):
    assert largest_difference(tiny(dims).float(), traced_at, *shapes) < 1e-4
