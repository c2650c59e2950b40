"""Training as in the four examples of segmentation_models.pytorch, with SMP and with pixelwise.smp: the same losses.

The loops are those of its notebooks on pets, cars and eleven classes of streets, and of its script on buildings: model,
preprocessing, loss, optimiser, schedule and scores come from `smp`, whichever that is. Pictures are drawn.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pixelwise import smp as ours

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)


class Example(NamedTuple):
    arch: str
    encoder: str
    classes: int
    mode: str
    channel: bool
    """Whether a mask has an axis for its one class."""


EXAMPLES = {
    "pets": Example("FPN", "resnet34", 1, "binary", True),
    "streets": Example("FPN", "resnext50_32x4d", 5, "multiclass", False),
    "cars": Example("FPN", "resnext50_32x4d", 1, "binary", True),
    "buildings": Example("Unet", "resnet34", 1, "binary", False),
}


class Training(nn.Module):
    """What the examples call a model: a network with its preprocessing, its loss, its optimiser and its scores."""

    def __init__(self, smp: Any, example: Example) -> None:
        super().__init__()
        self.smp, self.example = smp, example
        self.model = smp.create_model(
            example.arch,
            encoder_name=example.encoder,
            encoder_weights=None,
            in_channels=3,
            classes=example.classes,
        )
        params = smp.encoders.get_preprocessing_params(example.encoder)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(params[name]).view(1, 3, 1, 1))
        self.loss_fn = smp.losses.DiceLoss(
            getattr(smp.losses, f"{example.mode.upper()}_MODE"), from_logits=True
        )
        self.double()

    def forward(self, image: Tensor) -> Tensor:
        return self.model((image - self.mean) / self.std)

    def shared_step(self, image: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch, and its counts by picture."""
        logits = self(image)
        if self.example.mode == "multiclass":
            counts = self.smp.metrics.get_stats(
                logits.softmax(dim=1).argmax(dim=1),
                mask.long(),
                mode="multiclass",
                num_classes=logits.shape[1],
            )
        else:
            found = (logits.sigmoid() > 0.5).long()
            counts = self.smp.metrics.get_stats(
                found if self.example.channel else found.squeeze(1), mask.long(), mode="binary"
            )
        return self.loss_fn(logits.contiguous(), mask), list(counts)

    def scores(self, outputs: list[list[Tensor]]) -> dict[str, Tensor]:
        tp, fp, fn, tn = (torch.cat(counts) for counts in zip(*outputs, strict=True))
        return {
            reduction: self.smp.metrics.iou_score(tp, fp, fn, tn, reduction=reduction)
            for reduction in ("micro-imagewise", "micro")
        }


def batches(example: Example, count: int) -> list[tuple[Tensor, Tensor]]:
    """Bright discs on noise, a class each; pictures of 64 by 64."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    drawn = []
    for _ in range(count):
        image = torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64)
        mask = torch.zeros(2, 64, 64, dtype=torch.long)
        for picture in range(2):
            for number in range(1, max(2, example.classes)):
                middle = torch.randint(10, 54, (2,), generator=generator)
                disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 100
                mask[picture][disc] = number
                image[picture, number % 3][disc] += 0.5 + 0.1 * number
        drawn.append((image, mask.unsqueeze(1).double() if example.channel else mask))
    return drawn


def trained(
    smp: Any, example: Example, start: dict[str, Tensor], steps: int
) -> tuple[list[float], list[dict[str, Tensor]]]:
    """Losses of the steps; scores of training and validation."""
    training = Training(smp, example)
    training.model.load_state_dict(start)
    optimizer = torch.optim.Adam(training.parameters(), lr=2e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-5)
    losses, outputs = [], []
    training.train()
    for step, (image, mask) in enumerate(batches(example, steps)):
        torch.manual_seed(step)  # for dropout
        loss, counts = training.shared_step(image, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        outputs.append(counts)
    training.eval()
    with torch.no_grad():
        checked = [training.shared_step(*batch) for batch in batches(example, 2)]
    losses.extend(loss.item() for loss, _ in checked)
    return losses, [training.scores(outputs), training.scores([counts for _, counts in checked])]


@pytest.mark.parametrize(
    ("name", "steps"),
    [("buildings", 2), *(pytest.param(name, 20, marks=pytest.mark.slow) for name in EXAMPLES)],
)
def test_an_example_of_smp_has_its_losses_and_scores_after_one_import_is_changed(
    name, steps, tmp_path, monkeypatch
):
    told = tmp_path / "config.json"  # SMP asks the Hub for it
    told.write_text(json.dumps({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}))
    monkeypatch.setattr(theirs.encoders, "hf_hub_download", lambda *args, **kwargs: told)
    example = EXAMPLES[name]
    if steps < 20:  # every day: a smaller encoder of the same kind
        example = example._replace(encoder="tu-test_resnet.r160_in1k")
    torch.manual_seed(0)
    start = Training(theirs, example).model.state_dict()
    (expected, there), (got, here) = (trained(smp, example, start, steps) for smp in (theirs, ours))
    assert len(got) == steps + 2
    differences = (torch.tensor(got, dtype=torch.float64) - torch.tensor(expected, dtype=torch.float64)).abs()
    assert differences[:6].max() < 1e-8
    assert (
        differences.max() < 1e-3
    )  # SMP with its weights times 1 + 1e-15 differs from itself by 5e-5 on cars
    for scores, others in zip(here, there, strict=True):
        torch.testing.assert_close(scores, others, rtol=0, atol=1e-3)
