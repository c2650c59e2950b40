"""Other people's U-Net, U-Net++ and No New-Net checkpoints: their names to ours and back, and what is refused."""

from __future__ import annotations

import pytest
import torch

import pixelwise
from pixelwise.checkpoints.loading import families, recognise
from pixelwise.errors import WeightsError
from pixelwise.models.nonewnet import NoNewNet, nonewnet, nonewnet_2d, nonewnet_softmax
from pixelwise.models.unet import unet, unet_bilinear
from pixelwise.models.unet_valid import unet_phseg_v5, unet_valid
from pixelwise.models.unetplusplus import unetplusplus, unetplusplus_ds

FAMILIES = {family.name: family for family in families()}
FILTERS = [2, 3, 4, 5, 6]


def load(tensors, tmp_path):
    torch.save({"state_dict": tensors}, tmp_path / "file.pth")
    return pixelwise.from_checkpoint(tmp_path / "file.pth")


def randomised(network):
    generator = torch.Generator().manual_seed(11)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return network.eval()


# Names as the sources write them, spelled out here without the converters' tables ------------------------------------


def freiburg_shapes(d, in_channels, classes):
    """Layer -> shape of its weights in phseg_v5, of width d."""
    shapes = {}
    for level in range(5):
        before = d * 2 ** (level - 1) if level else in_channels
        shapes[f"conv_d{level}a-b"] = (d * 2**level, before, 3, 3)
        shapes[f"conv_d{level}b-c"] = (d * 2**level, d * 2**level, 3, 3)
    shapes["upconv_d4c_u3a"] = (16 * d, 8 * d, 2, 2)
    shapes["upconv_u3d_u2a"] = (8 * d, 4 * d, 2, 2)
    shapes["upconv_u2d_u1a"] = (4 * d, 2 * d, 2, 2)
    shapes["upconv_u1d_u0a"] = (2 * d, 2 * d, 2, 2)  # 128, not 64
    for level in range(4):
        shapes[f"conv_u{level}b-c"] = (d * 2**level, d * 2**level * (2 if level else 3), 3, 3)
        shapes[f"conv_u{level}c-d"] = (d * 2**level, d * 2**level, 3, 3)
    shapes["conv_u0d-score"] = (classes, d, 1, 1)
    return shapes


def freiburg(d=2, in_channels=1, classes=2):
    """Caffe's blobs, flattened: [weights, biases] of each layer, deconvolutions (in, out, h, w)."""
    blobs = {}
    for layer, shape in freiburg_shapes(d, in_channels, classes).items():
        blobs[f"{layer}.0"] = torch.randn(shape)
        blobs[f"{layer}.1"] = torch.randn(shape[1] if layer.startswith("upconv") else shape[0])
    return blobs


def keras(filters, in_channels, classes, heads):
    """Variables of the Keras network: kernels (h, w, in, out), of up-convolutions (h, w, out, in)."""
    shapes, depth = {}, len(filters) - 1
    for level in range(1, depth + 2):
        here = filters[level - 1]
        for column in range(1, depth + 3 - level):
            before = in_channels if level == 1 else filters[level - 2]
            if column > 1:
                before = here * column
                shapes[f"up{level}{column}"] = (2, 2, here, filters[level])
            shapes[f"conv{level}{column}_1"] = (3, 3, before, here)
            shapes[f"conv{level}{column}_2"] = (3, 3, here, here)
    for output in heads:
        shapes[f"output_{output}"] = (1, 1, filters[0], classes)
    variables = {}
    for layer, shape in shapes.items():
        variables[f"{layer}/kernel:0"] = torch.randn(shape)
        variables[f"{layer}/bias:0"] = torch.randn(shape[2] if layer.startswith("up") else shape[3])
    return variables


def release(width=2, bottom=12, classes=(3, 2), *, dims=3, levels=(0, 1, 2, 3), nested=True):
    """nnU-Net's names: blocks 0 .. 3 down, 4 the bottom, localization deepest first, one list of heads a level."""
    tensors = {}

    def block(name, before, here):
        tensors[f"{name}.conv.weight"] = torch.randn(here, before, *(3,) * dims)
        tensors[f"{name}.conv.bias"] = torch.randn(here)
        tensors[f"{name}.instnorm.weight"] = torch.randn(here)
        tensors[f"{name}.instnorm.bias"] = torch.randn(here)

    widths = [min(width * 2**level, bottom) for level in range(5)]
    for level in range(4):
        block(f"conv_blocks_context.{level}.blocks.0", widths[level - 1] if level else 4, widths[level])
        block(f"conv_blocks_context.{level}.blocks.1", widths[level], widths[level])
    block("conv_blocks_context.4.0.blocks.0", widths[3], widths[4])
    block("conv_blocks_context.4.1.blocks.0", widths[4], widths[3])
    for u, (here, above) in enumerate(((3, 2), (2, 1), (1, 0), (0, 0))):
        block(f"conv_blocks_localization.{u}.0.blocks.0", 2 * widths[here], widths[here])
        block(f"conv_blocks_localization.{u}.1.blocks.0", widths[here], widths[above])
        if u in levels:
            for h, k in enumerate(classes):
                name = f"seg_outputs.{u}.{h}.weight" if nested else f"seg_outputs.{u}.weight"
                tensors[name] = torch.randn(k, widths[above], *(1,) * dims)
    return tensors


# U-Net ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [unet, unet_bilinear])
def test_milesials_files_load_under_their_own_names(build, tmp_path):
    theirs = randomised(build(num_classes=5, in_channels=1, width=4))
    network = load(theirs.state_dict(), tmp_path).eval()
    assert network.origin.model == build.__name__
    image = torch.rand(1, 1, 33, 48)
    with torch.no_grad():
        assert torch.equal(network(image)["out"], theirs(image)["out"])


def test_milesials_values_of_masks_are_left_aside(tmp_path):
    tensors = unet(width=2).state_dict()
    network = load({**tensors, "mask_values": [0, 255]}, tmp_path)
    assert network.state_dict().keys() == tensors.keys()


def test_freiburgs_blobs_load_from_a_dictionary_of_lists_of_arrays():
    blobs = freiburg()
    layers = {key[:-2]: [blobs[f"{key[:-2]}.{i}"].numpy() for i in (0, 1)] for key in blobs}
    ours = pixelwise.from_checkpoint(layers).state_dict()
    assert torch.equal(ours["up1.up.bias"], blobs["upconv_u2d_u1a.1"])


def test_freiburgs_release_loads_and_is_written_back(tmp_path):
    blobs = freiburg()
    network = load(blobs, tmp_path)
    assert network.origin.model == "unet_phseg_v5"
    ours = network.state_dict()
    assert len(ours) == len(blobs) == 2 * 23
    assert torch.equal(ours["down4.conv2.weight"], blobs["conv_d4b-c.0"])
    assert torch.equal(ours["up3.up.weight"], blobs["upconv_d4c_u3a.0"])
    assert torch.equal(ours["up0.up.bias"], blobs["upconv_u1d_u0a.1"])
    assert torch.equal(ours["up2.pair.conv1.weight"], blobs["conv_u2b-c.0"])
    assert torch.equal(ours["up0.pair.conv2.bias"], blobs["conv_u0c-d.1"])
    assert torch.equal(ours["score.weight"], blobs["conv_u0d-score.0"])
    back = FAMILIES["freiburg.unet"].to_theirs(ours)
    assert back.keys() == blobs.keys()
    assert all(torch.equal(back[key], blobs[key]) for key in blobs)


def test_freiburgs_full_size_shapes_are_the_released_networks():
    with torch.device("meta"):
        blobs = {f"{layer}.0": torch.empty(s) for layer, s in freiburg_shapes(64, 1, 2).items()}
        network = unet_phseg_v5(in_channels=1)
    origin, _ = FAMILIES["freiburg.unet"].read(blobs)
    assert (origin.model, origin.arguments) == ("unet_phseg_v5", {"num_classes": 2, "in_channels": 1})
    own = FAMILIES["freiburg.unet"].to_theirs(network.state_dict())
    assert {key: own[key].shape for key in blobs} == {key: blobs[key].shape for key in blobs}


def test_caffes_old_four_dimensional_biases_load(tmp_path):
    blobs = freiburg()
    old = {key: b.reshape(1, 1, 1, -1) if key.endswith(".1") else b for key, b in blobs.items()}
    assert torch.equal(load(old, tmp_path).state_dict()["up0.up.bias"], blobs["upconv_u1d_u0a.1"])


def test_the_layer_names_of_the_release_are_not_given_to_the_papers_network(tmp_path):
    with pytest.raises(WeightsError, match=r"these weights have 4 in all.*only unet_phseg_v5"):
        FAMILIES["freiburg.unet"].to_theirs(unet_valid(width=2).state_dict())
    blobs = freiburg()
    blobs["conv_u0b-c.0"] = torch.randn(2, 4, 3, 3)
    with pytest.raises(WeightsError, match="only unet_phseg_v5"):
        load(blobs, tmp_path)


# U-Net++ -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "heads"), [(unetplusplus, (4,)), (unetplusplus_ds, (1, 2, 3, 4))])
def test_keras_unetplusplus_loads_and_is_written_back(build, heads, tmp_path):
    variables = keras(FILTERS, 3, 2, heads)
    network = load(variables, tmp_path)
    assert network.origin.model == build.__name__
    ours = network.state_dict()
    assert len(ours) == len(variables)
    kernel = variables["conv23_1/kernel:0"]  # X(1, 2): level and column count from 1 there
    assert torch.equal(ours["nodes.x12.unit.conv1.weight"][1, 2, 0, 1], kernel[0, 1, 2, 1])
    up = variables["up32/kernel:0"]  # (h, w, out, in)
    assert torch.equal(ours["nodes.x21.up.weight"][4, 3, 0, 1], up[0, 1, 3, 4])
    assert torch.equal(ours["nodes.x40.conv2.bias"], variables["conv51_2/bias:0"])
    assert torch.equal(ours["heads.4.bias"], variables["output_4/bias:0"])
    back = FAMILIES["keras.unetplusplus"].to_theirs(ours)
    assert back.keys() == variables.keys()
    assert all(torch.equal(back[key], variables[key]) for key in variables)


@pytest.mark.parametrize("spell", [
    lambda layer, leaf: f"{layer}/{layer}/{leaf}:0",  # as in an .h5 file
    lambda layer, leaf: f"model/{layer}/{leaf}",
    lambda layer, leaf: f"{layer}.{('kernel', 'bias').index(leaf)}",  # layer.get_weights(), flattened
])  # fmt: skip
def test_every_spelling_of_keras_variables_is_understood(spell, tmp_path):
    variables = keras(FILTERS, 1, 1, (4,))
    spelled = {spell(*key.removesuffix(":0").split("/")): value for key, value in variables.items()}
    ours = load(spelled, tmp_path).state_dict()
    _, expected = FAMILIES["keras.unetplusplus"].read(variables)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in ours)


def test_a_pruned_keras_network_loads_at_its_depth(tmp_path):
    network = load(keras(FILTERS[:3], 3, 1, (2,)), tmp_path)
    assert (network.origin.model, network.depth) == ("unetplusplus", 2)


def test_keras_full_size_counts_are_the_releases():
    with torch.device("meta"):
        network = unetplusplus_ds(in_channels=1)
    variables = FAMILIES["keras.unetplusplus"].to_theirs(network.state_dict())
    assert sum(v.numel() for v in variables.values()) == 9_041_700
    assert variables["up12/kernel:0"].shape == (2, 2, 32, 64)
    origin, _ = FAMILIES["keras.unetplusplus"].read(variables)
    assert (origin.model, origin.arguments) == ("unetplusplus_ds", {"num_classes": 1, "in_channels": 1})


# No New-Net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "architecture"),
    [
        ({}, "nonewnet"),
        ({"classes": (3,)}, "nonewnet"),
        ({"classes": (4,), "levels": (3,)}, "nonewnet_softmax"),
        ({"dims": 2, "bottom": 32}, "nonewnet_2d"),
    ],
)
def test_the_release_of_no_new_net_loads_and_is_written_back(arguments, architecture, tmp_path):
    tensors = release(**arguments)
    network = load(tensors, tmp_path)
    assert network.origin.model == architecture
    ours = network.state_dict()
    assert len(ours) == len(tensors)
    assert torch.equal(ours["down.2.1.norm.bias"], tensors["conv_blocks_context.2.blocks.1.instnorm.bias"])
    assert torch.equal(ours["bottom.1.conv.weight"], tensors["conv_blocks_context.4.1.blocks.0.conv.weight"])
    assert torch.equal(ours["up.0.0.conv.bias"], tensors["conv_blocks_localization.0.0.blocks.0.conv.bias"])
    assert torch.equal(ours["heads.0.0.weight"], tensors["seg_outputs.3.0.weight"])
    if "heads.3.1.weight" in ours:
        assert torch.equal(ours["heads.3.1.weight"], tensors["seg_outputs.0.1.weight"])
    back = FAMILIES["dkfz.nonewnet"].to_theirs(ours)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


def test_the_releases_full_size_shapes_make_the_network_of_its_count():
    with torch.device("meta"):
        tensors = release(30, 320, (3, 3))
        origin, _ = FAMILIES["dkfz.nonewnet"].read(tensors)
        network = nonewnet(**origin.arguments)
    assert tensors["conv_blocks_context.4.0.blocks.0.conv.weight"].shape == (320, 240, 3, 3, 3)
    assert origin.arguments == {
        "num_classes": 3, "in_channels": 4, "deep_supervision": True, "cotraining_classes": 3,
    }  # fmt: skip
    assert sum(tensor.numel() for tensor in tensors.values()) == 12_420_330
    assert sum(p.numel() for p in network.parameters()) == 12_420_330


def test_a_cap_of_480_is_read_off_the_weights():
    with torch.device("meta"):
        origin, _ = FAMILIES["dkfz.nonewnet"].read(release(30, 480, (3,)))
    assert origin.arguments["cap"] == 480


def test_nnunets_single_heads_load_and_are_written_back(tmp_path):
    tensors = release(classes=(3,), nested=False)
    network = load(tensors, tmp_path)
    assert network.origin.model == "nonewnet"
    assert torch.equal(network.heads[1][0].weight, tensors["seg_outputs.2.weight"])
    back = FAMILIES["nnunet_v1.unet"].to_theirs(network.state_dict())
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    twins = NoNewNet(width=2, cotraining_classes=2).state_dict()
    with pytest.raises(WeightsError, match="one head a level"):
        FAMILIES["nnunet_v1.unet"].to_theirs(twins)


def test_nnunets_transposed_convolutions_are_another_network(tmp_path):
    tensors = release(classes=(3,), nested=False) | {"tu.0.weight": torch.randn(16, 16, 2, 2, 2)}
    with pytest.raises(WeightsError, match="interpolates"):
        load(tensors, tmp_path)


# Every one of them ---------------------------------------------------------------------------------------------------

SAMPLES = {
    "milesial.unet": lambda: dict(unet(width=2).state_dict()),
    "freiburg.unet": freiburg,
    "keras.unetplusplus": lambda: keras(FILTERS, 3, 1, (1, 2, 3, 4)),
    "dkfz.nonewnet": release,
    "nnunet_v1.unet": lambda: release(classes=(3,), nested=False),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_family_is_recognised_by_its_marks(name):
    assert recognise(SAMPLES[name]()).name == name


@pytest.mark.parametrize("name", SAMPLES)
def test_a_renamed_a_missing_and_a_misshapen_tensor_are_each_refused(name, tmp_path):
    whole = SAMPLES[name]()
    key = sorted(whole)[len(whole) // 2]
    renamed = {k.replace(key, f"{key}x") if k == key else k: tensor for k, tensor in whole.items()}
    missing = {k: tensor for k, tensor in whole.items() if k != key}
    misshapen = whole | {key: torch.zeros(*whole[key].shape, 2)}
    for damaged in (renamed, missing, misshapen):
        with pytest.raises(WeightsError):
            load(damaged, tmp_path)


@pytest.mark.parametrize(
    ("build", "arguments", "tensors"),
    [
        (unet_phseg_v5, {"width": 2, "in_channels": 1}, freiburg),
        (unetplusplus, {"filters": FILTERS}, lambda: keras(FILTERS, 3, 1, (4,))),
        (nonewnet_2d, {"width": 2, "cap": 12}, lambda: release(classes=(3,), dims=2, levels=(3,))),
        (nonewnet_softmax, {"width": 2, "cap": 12}, lambda: release(classes=(4,), levels=(3,))),
    ],
)
def test_a_builder_takes_the_path_of_such_a_file(build, arguments, tensors, tmp_path):
    torch.save(tensors(), tmp_path / "weights.pth")
    network = build(weights=tmp_path / "weights.pth", **arguments)
    expected = pixelwise.from_checkpoint(tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
