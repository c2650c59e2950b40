"""The plan of a training: from what a data set measures (`datasets.fingerprint`) to a `TrainConfig`, with a reason for
each decision.

A plan is a function of the fingerprint, of what somebody asked for, of the machine and of the number of pictures; the
clock comes in through `steps` alone. What it decides is written into the configuration, so that whoever starts from
that gets the same numbers on any machine that computes alike.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelwise.datasets.fingerprint import Fingerprint
from pixelwise.decoders import DECODERS
from pixelwise.errors import InputError
from pixelwise.terminal import counted
from pixelwise.training.config import SMALLEST, TrainConfig

THIN = 3.0
"""Pixels below which a thing is lost by shrinking, and which no random scale makes it fall under."""

SMALL = 12.0
"""The same for the size of things: sixteen of their pixels become one of the network's coarser features."""

SHALLOW = 64.0
"""The size of things, in pixels, up to which the encoder's last stage is left out."""

LARGE = 512
"""Shorter side to which large pictures of large things are shrunk, in pixels."""

SOUGHT = 0.2
"""Share of the pixels below which crops are drawn about a class."""

SPARSE = 0.1
"""Share of the pixels below which Dice counts the one class that is looked for, not the ground beside it."""

MANY = 16
"""Classes above which a network from random weights learns at twice the rate."""

STEADY_LIGHT, STEADY_TINT = 0.016, 0.01
"""How much the pictures of one fixed camera in one light may differ: `Fingerprint.light` and tint."""

BYTES_A_PIXEL = {"resnet18": 1600, "resnet34": 2000}
"""Memory of a training step for each pixel of the batch, about; 4000 for other encoders."""

AS_ASKED = "as asked for"


@dataclass(frozen=True)
class Machine:
    """What a plan knows of the machine. memory: bytes, of the GPU or else of all, 0 where the system does not say;
    bfloat16: it multiplies in bfloat16."""

    gpu: bool = False
    cores: int = 1
    memory: int = 0
    bfloat16: bool = False


def plan(
    fingerprint: Fingerprint,
    given: Mapping[str, Any],
    machine: Machine,
    *,
    pictures: int,
    held_out: int,
    steps: int | None = None,
    because: str = "",
    weights: str | None = "auto",
    regions: bool = False,
) -> TrainConfig:
    """The configuration of a run, with a reason for each decision in `reasons`.

    given: fields of TrainConfig that somebody asked for, which stay; of `augment` each key by itself; "crop", the side
    of crops at the pictures' own size, is one besides. pictures, held_out: how many there are to learn from and to
    validate on. steps, because: how many steps a budget allows, and the sentence that says so. weights: those of the
    encoder that were found, where that is known. regions: classes overlap, and the network has no output for the first.

    Raises InputError for values out of range, and for options that contradict each other.
    """
    return _Planning(
        fingerprint, given, machine, pictures, held_out, steps, because, weights, regions
    ).config()


class _Planning:
    def __init__(
        self, fingerprint: Fingerprint, given: Mapping[str, Any], machine: Machine, pictures: int, held_out: int,
        steps: int | None, because: str, weights: str | None, regions: bool,
    ) -> None:  # fmt: skip
        self.print, self.machine = fingerprint, machine
        self.given = dict(given)
        self.crop_asked = self.given.pop("crop", None)
        self.augment_given: dict[str, Any] = dict(self.given.pop("augment", {}) or {})
        if self.crop_asked is not None:
            if self.given.get("image_size"):
                raise InputError(
                    "--crop cuts crops out of the pictures at their own size and --image-size resizes the pictures: "
                    "give one of them"
                )
            self.given["image_size"] = 0
            self.augment_given.setdefault("crop_hw", [self.crop_asked, self.crop_asked])
        refuse_out_of_range(self.given, self.crop_asked)
        self.pictures, self.held_out = pictures, held_out
        self.steps, self.because, self.weights = steps, because, weights
        self.regions = regions
        self.values: dict[str, Any] = {}
        self.augment: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def config(self) -> TrainConfig:
        self.network()
        self.scale()
        self.depth()
        self.crop()
        self.batch()
        self.sampling()
        self.augmentation()
        self.loss()
        self.length()
        self.optimiser()
        self.rest()
        return TrainConfig.from_dict(
            {**self.given, **self.values, "augment": self.augment, "reasons": self.reasons}
        )

    def decide(self, name: str, value: Any, reason: str) -> Any:
        """Take a value, unless somebody asked for another; what is taken."""
        place, key = (self.augment, name[8:]) if name.startswith("augment.") else (self.values, name)
        asked = self.augment_given if place is self.augment else self.given
        if key in asked:
            place[key] = asked[key]
            self.reasons[name] = AS_ASKED
        else:
            place[key] = value
            self.reasons[name] = reason
        return place[key]

    @property
    def shrinking(self) -> float:
        """How many pixels the network sees for one of the picture, along a side."""
        side = self.values["image_size"]
        return side / max(1, self.print.shorter_side[1]) if side else 1.0

    def network(self) -> None:
        model = self.decide(
            "model", "unet", "its connections past the encoder keep what is a few pixels wide"
        )
        if model in DECODERS:
            encoder, why = ("resnet34", "there is a GPU") if self.machine.gpu else (
                "resnet18", "there is no GPU, and deeper ones take half as long again"
            )  # fmt: skip
            self.decide("encoder", encoder, why)
        if self.given.get("weights", "auto") == "auto":
            self.given.pop("weights", None)
        why = "ImageNet's if they can be had, else random ones"
        if self.weights != "auto":
            why = "those of ImageNet" if self.weights else "random ones, as ImageNet's could not be fetched"
        self.decide("weights", self.weights, why)
        precise = "its sums stay in float32, and a step takes less time"
        if self.machine.bfloat16:
            self.decide("precision", "bfloat16", f"this machine multiplies in it: {precise}")
        else:
            self.decide("precision", "float32", "this machine does not multiply in bfloat16")

    def scale(self) -> None:
        """The working scale: the pictures' own size, but for large ones of nothing small."""
        side = self.print.shorter_side[1]
        factor = LARGE / max(side, 1)
        thinnest = min(
            (c for c in self.print.objects if c.narrow_px is not None),
            key=lambda c: c.narrow_px or 0.0, default=None,
        )  # fmt: skip
        smallest = min(
            (c for c in self.print.objects if c.size_px is not None),
            key=lambda c: c.size_px or 0.0, default=None,
        )  # fmt: skip
        size, why = 0, "own size: nothing was measured that says how far the pictures may be shrunk"
        if side <= LARGE:
            size, why = 0, f"own size, no shrinking: shorter sides are {side} px"
            if thinnest is not None and (thinnest.narrow_px or 0) < 2 * THIN:
                why = f"own size, no shrinking: {_short(thinnest.name)} is {_px(thinnest.width_px)} wide"
        elif thinnest is not None and (thinnest.narrow_px or 0) * factor < THIN:
            why = (
                f"own size, no shrinking: {_short(thinnest.name)} is {_px(thinnest.narrow_px)} wide, which at "
                f"{LARGE} of {side} px would be {(thinnest.narrow_px or 0) * factor:.1f}"
            )
        elif smallest is not None and (smallest.size_px or 0) * factor < SMALL:
            why = (
                f"own size, no shrinking: {_short(smallest.name)} is {_px(smallest.size_px)} large, which at "
                f"{LARGE} of {side} px would be {(smallest.size_px or 0) * factor:.0f}"
            )
        elif thinnest is not None and smallest is not None:
            size = LARGE
            why = (
                f"shrunk from {side} px: the thinnest, {_short(thinnest.name)}, is {_px(thinnest.narrow_px)} wide and "
                f"stays {(thinnest.narrow_px or 0) * factor:.0f}"
            )
        size = self.decide("image_size", size, why)
        thin = THIN if thinnest is None else (thinnest.narrow_px or 0) * self.shrinking
        if size and thin < THIN and thinnest is not None and self.reasons["image_size"] == AS_ASKED:
            self.reasons["image_size"] = (
                f"{AS_ASKED}; {_short(thinnest.name)}, {_px(thinnest.narrow_px)} wide, becomes {thin:.1f}: "
                "--crop leaves pictures at their own size"
            )

    @property
    def largest(self) -> float | None:
        """The size of the largest things as the network sees them, in pixels. Of what is long and thin, ten widths: the
        network need not see it from end to end."""
        sizes = [min(c.large_px, 10 * (c.width_px or c.large_px)) for c in self.print.objects if c.large_px]
        return max(sizes) * self.shrinking if sizes else None

    def depth(self) -> None:
        largest = self.largest
        if self.values["model"] != "unet" or self.values.get("encoder") is None:
            return
        if largest is not None and largest <= SHALLOW:
            why = f"things are at most {largest:.0f} px: a stride of 16 sees them whole, and steps take less time"
            self.decide("model_options", {"encoder_depth": 4}, why)
        else:
            self.decide("model_options", {}, "an encoder's usual stride of 32, for things of many sizes")

    def crop(self) -> None:
        least, most = (256, 512) if self.machine.gpu else (128, 192)
        largest = self.largest
        wanted = float(most) if largest is None else 4 * largest
        side = _multiple(min(max(wanted, least), most))
        why = f"as much as is usual {'on a GPU' if self.machine.gpu else 'without a GPU'}"
        if largest is not None and wanted < most:
            why = f"four times the size of the largest things, {largest:.0f} px, and at least {least}"
        shown = self.values["image_size"] or self.print.shorter_side[1]
        if 0 < shown < side:
            side, why = _multiple(shown), f"the pictures' shorter side is {shown} px"
        asked = self.values["image_size"] and "image_size" in self.given
        if asked:
            side, why = self.values["image_size"], "the size that was asked for"
        self.decide("augment.crop_hw", [side, side], why)
        fits = _multiple(max(self.print.height[2], self.print.width[2]))
        if self.crop_asked is not None and self.print.pictures and self.crop_asked > fits:
            raise InputError(
                f"crops of {self.crop_asked} px are larger than the pictures, of {self.print.height[1]} x "
                f"{self.print.width[1]} px (h x w): use --crop {fits} or less"
            )

    def batch(self) -> None:
        usual = 8 if self.machine.gpu else 4
        why = "a GPU wants many at a time" if self.machine.gpu else "without a GPU more steps are worth more"
        sides = self.augment["crop_hw"]
        each = BYTES_A_PIXEL.get(str(self.values.get("encoder")), 4000) * math.prod(sides)
        if self.machine.memory and (room := max(2, self.machine.memory // 2 // each)) < usual:
            usual, why = room, f"half of {self.machine.memory / 2**30:.0f} GiB of memory"
        if self.pictures < usual:
            usual, why = max(1, self.pictures), f"there are no more than {counted(self.pictures, 'picture')}"
        self.decide("batch_size", usual, why)

    def sampling(self) -> None:
        objects = self.print.objects
        rare = min(objects, key=lambda c: c.share, default=None)
        unseen = min(objects, key=lambda c: c.shown, default=None)
        if len(objects) > 1 and unseen is not None and unseen.shown < 0.25:
            self.decide(
                "class_balanced", True, f"only {unseen.shown:.0%} of the pictures show {_short(unseen.name)}"
            )
        else:
            self.decide("class_balanced", False, "most pictures show every class")
        if rare is not None and rare.share < SOUGHT:
            why = f"{_short(rare.name)} has {_share(rare.share)} of the pixels: half of the crops lie about an object"
            self.decide("augment.on_object", 0.5, why)
        else:
            self.decide("augment.on_object", 0.0, "every class fills much of the pictures")
        if self.print.largest_share < 0.6:
            why = f"most pictures allow it: their largest class fills {self.print.largest_share:.0%}"
            self.decide("augment.largest_share", 0.75, why)
        else:
            why = f"one class fills {self.print.largest_share:.0%} of the pictures: no crop could be had otherwise"
            self.decide("augment.largest_share", 1.0, why)

    def augmentation(self) -> None:
        sizes = [
            (c.size_px, c.large_px)
            for c in self.print.objects
            if c.size_px is not None and c.large_px is not None
        ]
        thin = min((c.narrow_px for c in self.print.objects if c.narrow_px is not None), default=None)
        thin = None if thin is None else thin * self.shrinking
        many = any(large > 3 * size for size, large in sizes) or not sizes
        if thin is not None and thin < 2 * THIN:
            scale, why = [0.9, 1.1], f"things are {thin:.1f} px wide: a little, so that none is lost"
        elif many:
            scale, why = [0.6, 1.7], "things come in many sizes"
        else:
            scale, why = [0.9, 1.1], "things are of a few sizes: a little is enough"
        self.decide("augment.scale", scale, why)
        light, tint = self.print.light, self.print.tint
        measured = f"the same classes differ by {light:.1%} in light and {tint:.1%} in colour from picture to picture"
        if self.print.pictures > 1 and light < STEADY_LIGHT and tint < STEADY_TINT:
            amount, why = 0.3, "one fixed camera, little is enough"
        else:
            amount, why = 0.5, "more than where one fixed camera took them all"
        self.decide(
            "augment.colour", 0.5, "half of the crops change in each of brightness, contrast and colours"
        )
        self.decide("augment.colour_amount", amount, f"{measured}: {why}")
        if self.print.value_range is not None:
            low, high = self.print.value_range
            why = f"pictures of more than 8 bits: 0.5 and 99.5 percent of the values lie below {low:.0f} and {high:.0f}"
            self.decide("value_range", [low, high], why)

    def loss(self) -> None:
        if self.regions:
            why = "cross-entropy learns from the first step on, Dice counts what is scored"
            self.decide("losses", {"cross_entropy": 1.0, "dice": 1.0}, why)
            return
        why = "what is scored; with cross-entropy beside it drawn data sets were learned more slowly"
        losses = self.decide("losses", {"dice": 1.0}, why)
        sparse = all(c.share < SPARSE for c in self.print.objects)
        if len(self.print.classes) == 2 and "dice" in losses and sparse:
            one = 1 - self.print.ground
            why = f"Dice of {_short(self.print.classes[one].name)} alone, the one class that is looked for"
            self.decide("loss_options", {"dice": {"classes": [one], "absent": "area"}}, why)

    def length(self) -> None:
        batch = self.values["batch_size"] * self.given.get("accumulate", 1)
        if self.given.get("steps") is not None or self.given.get("epochs") is not None:
            name = "steps" if self.given.get("steps") is not None else "epochs"
            self.reasons[name] = AS_ASKED
            steps = self.given.get("steps") or max(1, round(self.given["epochs"] * self.pictures / batch))
        elif self.steps is not None:
            steps = self.decide("steps", self.steps, self.because)
        else:
            area = self.print.height[1] * self.print.width[1] * self.shrinking**2
            views = min(4.0, max(1.0, area / max(1, math.prod(self.augment["crop_hw"]))))
            steps = max(200, round(50 * views * self.pictures / batch))
            each = f"each of {counted(self.pictures, 'picture')} is seen 50 times, in {views:.1f} crops"
            why = f"{each}; --budget sets others"
            steps = self.decide("steps", steps, why)
        self.total = steps

    def optimiser(self) -> None:
        steps = self.total
        if self.values["weights"] is None and len(self.print.classes) > MANY:
            why = f"an encoder without weights has far to go, and {len(self.print.classes)} classes to tell apart"
            self.decide("peak_lr", 4e-3, why)
        elif self.values["weights"] is None:
            self.decide("peak_lr", 2e-3, "an encoder without weights has far to go")
        else:
            self.decide("peak_lr", 1e-3, "AdamW's usual one; --find-lr looks for a better one")
        self.decide("schedule", "poly", "it falls evenly, almost to nothing")
        self.decide("warmup_steps", steps // 20, "a twentieth of the steps")
        epoch = max(1, math.ceil(self.pictures / max(1, self.values["batch_size"])))
        interval = min(steps, max(epoch, -(-steps // validations(steps))))
        self.decide(
            "validate_every", interval,
            f"{counted(-(-steps // interval), 'time')}, on {counted(self.held_out, 'picture')} kept back"
            + (", which are few: scores on them are rough" if self.held_out < 5 else ""),
        )  # fmt: skip

    def rest(self) -> None:
        self.values.setdefault("channels_last", self.given.get("channels_last", True))
        self.values.setdefault("workers", self.given.get("workers", usual_workers()))
        for key, value in self.augment_given.items():
            if key not in self.augment:
                self.augment[key], self.reasons[f"augment.{key}"] = value, AS_ASKED
        settled = {
            *self.values,
            *self.reasons,
            "data",
            "format",
            "map_ids",
            "workers",
            "trackers",
            "save_minutes",
        }
        for name in self.given:
            if name not in settled:
                self.reasons[name] = AS_ASKED


def usual_size(shorter_sides: Sequence[int], most: int = LARGE) -> int:
    """What a configuration that leaves image_size open means: the median of the pictures' shorter sides, as a multiple
    of 32 from 64 to `most` pixels."""
    return min(max(round(statistics.median(shorter_sides) / 32) * 32, 64), most)


def usual_workers() -> int:
    """How many processes load pictures unless somebody says otherwise."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))


def validations(steps: int) -> int:
    """How often a run of so many steps looks at what it holds back."""
    return 20 if steps >= 1000 else max(2, steps // 50)


def steps_within(
    seconds: float, a_step: float, a_validation: float, looks: Callable[[int], int] = validations
) -> int:
    """The most steps that fit into a budget with their validations and the last scoring; at least 1. looks: how many
    validations so many steps have."""

    def takes(steps: int) -> float:
        return steps * a_step + (looks(steps) + 1) * a_validation

    low, high = 1, max(2, int(seconds / max(a_step, 1e-6)) + 1)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) <= seconds else (low, middle)
    return low


def refuse_out_of_range(given: Mapping[str, Any], crop: int | None) -> None:
    """Raise InputError for values that no configuration may have, before anything is computed with them."""
    if crop is not None and not SMALLEST <= crop <= 2**16:
        raise InputError(f"--crop must lie between {SMALLEST} and {2**16} pixels, got {crop}")
    open_ended = given.get("steps") is None and given.get("epochs") is None
    TrainConfig.from_dict({**given, **({"steps": 2**40} if open_ended else {})})


def parse_budget(text: str) -> float:
    """Seconds of "90s", "20min", "1.5h", or of a number of minutes. Raises InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|sec|m|min|h|hours?)?\s*", text.lower())
    seconds = 0.0
    if match is not None:
        seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[(match[2] or "m")[0]]
    if not 0 < seconds < 1e9:
        raise InputError(f"a budget is a time such as 90s, 20min or 2h, got {text!r}")
    return seconds


def rows(config: TrainConfig) -> list[tuple[str, str, str]]:
    """(decision, value, reason) of a plan, in its order."""
    values = config.to_dict()
    found = []
    for name, reason in config.reasons.items():
        inside, _, key = name.partition(".")
        value = (values[inside] or {}).get(key) if key else values.get(name)
        found.append((name.removeprefix("augment."), _shown(value), reason))
    return found


def table(config: TrainConfig, width: int | None = None) -> str:
    """The decisions of a plan in lines of at most so many characters, the terminal's by default."""
    width = max(60, width or shutil.get_terminal_size((100, 24)).columns)
    found = rows(config)
    first = max((len(name) for name, _, _ in found), default=0)
    second = min(20, max((len(value) for _, value, _ in found), default=0))
    indent = " " * (first + second + 4)
    lines = []
    for name, value, reason in found:
        head = f"{name:{first}}  {value:{second}}  "
        if len(value) > second:  # the reason then begins on a line of its own
            lines.append(head.rstrip())
            head = indent
        wrapped = textwrap.wrap(reason, width - len(indent), break_long_words=False)
        lines += [(head if i == 0 else indent) + line for i, line in enumerate(wrapped)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_shown(each)}" for key, each in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return " ".join(_shown(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _multiple(side: float) -> int:
    return max(32, -(-round(side) // 32) * 32)


def _px(length: float | None) -> str:
    return "?" if length is None else f"{length:.0f} px" if length >= 10 else f"{length:.1f} px"


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{share:.3%}"


def _short(name: str) -> str:
    return repr(name if len(name) <= 30 else name[:27] + "...")
