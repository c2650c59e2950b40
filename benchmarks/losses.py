"""Losses, forward and backward: ours against SMP's and MONAI's, and cross-entropy against torch's.

Two kinds of logits: those of an untrained network (noise), and sharp ones, mostly right, as at the end of a
training, where Lovász has nearly every pixel to sort. All contenders get the same float32 logits and int64
targets, and run on torch's threads in one process, so on equally many; "loss" and "gradient" say how far apart
ours and the peer's are, where both follow the same rule (every class is present). With 8-bit targets, of which
one pixel in ten is ignored, the peers, who take only int64, convert first.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise import losses
from pixelwise.losses import IGNORE
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

    def from_8_bit(loss: Loss) -> Loss:
        return lambda logits, target: loss(logits, target.long())

    smps, monais = smp.losses, monai.losses
    options = {"to_onehot_y": True, "softmax": True}
    every_pixel: list[tuple[str, Loss, str, Loss, bool]] = [
        ("Lovász-softmax", losses.lovasz_softmax, "SMP", smps.LovaszLoss("multiclass"), True),
        ("Dice", lambda a, b: losses.dice(a, b, smooth=0), "SMP", smps.DiceLoss("multiclass"), True),
        ("Dice, by image", lambda a, b: losses.dice(a, b, smooth=1e-5, over="image"),
         "MONAI", for_monai(monais.DiceLoss(**options)), True),
        ("focal", losses.focal, "SMP", smps.FocalLoss("multiclass"), False),  # SMP's is of the sigmoid
        ("focal", lambda a, b: losses.focal(a, b) / k,
         "MONAI", for_monai(monais.FocalLoss(to_onehot_y=True, use_softmax=True)), True),
        ("cross-entropy", losses.cross_entropy, "torch", F.cross_entropy, True),
    ]  # fmt: skip
    dice_8_bit = from_8_bit(smps.DiceLoss("multiclass", ignore_index=IGNORE))
    cross_entropy_8_bit = from_8_bit(partial(F.cross_entropy, ignore_index=IGNORE))
    some_ignored: list[tuple[str, Loss, str, Loss, bool]] = [
        ("Dice, 8-bit target", lambda a, b: losses.dice(a, b, smooth=0), "SMP", dice_8_bit, True),
        ("cross-entropy, 8-bit target", losses.cross_entropy, "torch", cross_entropy_8_bit, True),
    ]
    void = target.to(torch.uint8).masked_fill(torch.rand(target.shape) < 0.1, IGNORE)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__} with {threads} threads, peers and pixelwise alike")
    sets = [
        ("noise", noise, target, every_pixel),
        ("noise", noise, void, some_ignored),
        ("sharp", sharp, target, every_pixel),
        ("sharp", sharp, void, some_ignored),
    ]
    for kind, logits, target, work in sets:
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
                threads_of_each=threads, **apart,
            )  # fmt: skip


if __name__ == "__main__":
    main()
