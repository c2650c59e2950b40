"""Losses, forward and backward: ours against SMP's and MONAI's, and cross-entropy against torch's.

Two kinds of logits: those of an untrained network (noise), and sharp ones, mostly right, as at the end of a
training, where Lovász has nearly every pixel to sort. All contenders get the same float32 tensors; "loss" and
"gradient" say how far apart ours and the peer's are, where both follow the same rule (every class is present).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise import losses
from timing import alternately, record

Loss = Callable[[Tensor, Tensor], Tensor]


def step(loss: Loss, logits: Tensor, target: Tensor) -> Callable[[], Tensor]:
    """A call that computes the loss of `logits` and its gradient, and returns the gradient."""

    def run() -> Tensor:
        leaf = logits.detach().requires_grad_()
        loss(leaf, target).backward()
        assert leaf.grad is not None
        return leaf.grad

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time losses forward and backward, alternately with their peers."
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # of the peers' imports
    import monai.losses
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    n, k, side = 8, 21, 256
    target = torch.randint(0, k, (n, side, side))
    noise = torch.randn(n, k, side, side)
    sharp = (2 * noise + 8 * F.one_hot(target, k).movedim(-1, 1)).contiguous()

    def for_monai(loss: Loss) -> Loss:
        return lambda logits, target: loss(logits, target.unsqueeze(1))

    smps, monais = smp.losses, monai.losses
    options = {"to_onehot_y": True, "softmax": True}
    work: list[tuple[str, Loss, str, Loss, bool]] = [
        ("Lovász-softmax", losses.lovasz_softmax, "SMP", smps.LovaszLoss("multiclass"), True),
        ("Dice", lambda a, b: losses.dice(a, b, smooth=0), "SMP", smps.DiceLoss("multiclass"), True),
        ("Dice, by image", lambda a, b: losses.dice(a, b, smooth=1e-5, over="image"),
         "MONAI", for_monai(monais.DiceLoss(**options)), True),
        ("focal", losses.focal, "SMP", smps.FocalLoss("multiclass"), False),  # SMP's is of the sigmoid
        ("focal", lambda a, b: losses.focal(a, b) / k,
         "MONAI", for_monai(monais.FocalLoss(to_onehot_y=True, use_softmax=True)), True),
        ("cross-entropy", losses.cross_entropy, "torch", F.cross_entropy, True),
    ]  # fmt: skip
    for kind, logits in (("noise", noise), ("sharp", sharp)):
        for name, ours, peer, theirs, same_rule in work:
            runs = {peer: step(theirs, logits, target), "pixelwise": step(ours, logits, target)}
            apart: dict[str, float] = {}
            if same_rule:
                gap = runs[peer]() - runs["pixelwise"]()
                apart["gradient_difference"] = (gap.abs().max() / runs[peer]().abs().max()).item()
                with torch.no_grad():
                    apart["loss_difference"] = abs((theirs(logits, target) - ours(logits, target)).item())
            times = alternately(runs, repeats=arguments.repeats, warmup=1)
            record(
                "losses", f"{name}, {kind} logits {n} x {k} x {side} x {side}", peer, "pixelwise", times,
                torch_threads=torch.get_num_threads(), **apart,
            )  # fmt: skip


if __name__ == "__main__":
    main()
