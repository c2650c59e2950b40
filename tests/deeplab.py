"""What the tests of the DeepLab family share: weights that hide nothing, obvious arithmetic, round trips of names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.checkpoints.loading import from_checkpoint, recognise
from pixelwise.errors import WeightsError


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with random norms and biases (fresh ones are 0 or 1 and hide mistakes)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.2, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.normal_(0, 0.1, generator=generator)
                if module.weight.std() < 0.02:  # classifiers begin near nought
                    module.weight.mul_(10)
    return network.eval()


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the range of what is expected."""
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / (expected.max() - expected.min()))


def parameters(builder, **arguments) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in builder(**arguments).parameters())


def bilinear(image: Tensor, size_hw: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Two weighted pixels along each axis, written out."""
    for axis, size in zip((2, 3), size_hw, strict=True):
        old = image.shape[axis]
        if align_corners:
            places = np.arange(size) * ((old - 1) / (size - 1) if size > 1 else 0)
        else:
            places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, None)
        low = np.minimum(np.floor(places).astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        share = torch.tensor(places - low, dtype=image.dtype)
        share = share[:, None] if axis == 2 else share
        image = (
            image.index_select(axis, torch.tensor(low)) * (1 - share)
            + image.index_select(axis, torch.tensor(high)) * share
        )
    return image


def holes(x: Tensor, weight: Tensor, bias: Tensor | None, rate: int) -> Tensor:
    """Dilated convolution that keeps the size: one shifted 1x1 convolution for each value of the kernel, summed."""
    side, (h, w) = weight.shape[-1], x.shape[2:]
    pad = (side - 1) * rate // 2
    x = F.pad(x, (pad,) * 4)
    y = sum(
        F.conv2d(x[:, :, i * rate : i * rate + h, j * rate : j * rate + w], weight[:, :, i, j, None, None])
        for i in range(side)
        for j in range(side)
    )
    return y if bias is None else y + bias[:, None, None]


def normed(x: Tensor, names: dict[str, Tensor], name: str, eps: float = 1e-5) -> Tensor:
    """Batch norm by its definition, from tensors called as torch calls them."""
    mean, var = names[f"{name}.running_mean"], names[f"{name}.running_var"]
    x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + eps)
    return x * names[f"{name}.weight"][:, None, None] + names[f"{name}.bias"][:, None, None]


def survives_the_round_trip(family, network: nn.Module, *, damage: bool = True) -> dict[str, Tensor]:
    """Ours to theirs to ours: recognised, read, loaded, equal; a renamed or a missing tensor is noticed, and one
    of the wrong shape (`damage`; for one network of each family, as it takes time).

    Returns the tensors under their names.
    """
    ours = network.state_dict()
    theirs = family.to_theirs(ours)
    assert recognise(theirs) is family
    again = from_checkpoint(theirs)
    assert again.origin.model == network.origin.model
    got = again.state_dict()
    assert got.keys() == ours.keys()
    for name, tensor in ours.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(got[name], tensor), name
    if not damage:
        return theirs
    victim = next(name for name in reversed(theirs) if not name.endswith("num_batches_tracked"))
    fewer = {name: tensor for name, tensor in theirs.items() if name != victim}
    for damaged in (fewer, {**fewer, f"{victim}x": theirs[victim]}):
        with pytest.raises(WeightsError):
            from_checkpoint(damaged)
    with pytest.raises(WeightsError):
        from_checkpoint({**theirs, victim: theirs[victim].flatten()[:1].reshape([1] * theirs[victim].ndim)})
    return theirs


def gradient_reaches_everything(network: nn.Module, image: Tensor) -> None:
    network.train()
    sum(logits.square().mean() for logits in network(image).values()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
