"""TrainConfig: a run written down. Stored as JSON in the run's folder and inside its checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pixelwise.errors import InputError
from pixelwise.inference.volume_preprocess import VolumePreprocess
from pixelwise.untrusted import Between, Plain, fit, read

MATTERS_NOT = frozenset({"workers", "save_minutes", "trackers", "reasons"})
"""Fields that change no number, and so may differ when a run is resumed."""

SMALLEST = 32
"""Pixels to which a picture's shorter side may be resized: what an encoder of the usual stride makes one feature of."""

LENGTH = frozenset({"steps", "epochs"})
"""Fields that say how long a run is, with which it may be prolonged."""

MOVES = frozenset({"data"})
"""Fields that may differ when a run is gone on with, as long as what they name is the same (`training.kept_data`)."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a run that is a plain value; the same configuration gives the same numbers.

    steps or epochs, one of the two. A step is one update of the weights: batch_size pictures of each process, in each
    of `accumulate` forward passes. The fields under "network", "data" and "loss" are read by `training.experiment`;
    a recipe that hands `fit` its own network, samples and loss may leave them out.

    Raises InputError for values out of range.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 8
    accumulate: int = 1  # forward passes a step; gradients are their mean
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0

    # network
    model: str = ""
    encoder: str | None = None
    model_options: dict[str, Plain] = field(default_factory=dict)
    weights: str | None = None  # of the encoder or backbone: a file, or "imagenet" (fetched); None: random

    # data
    data: str = ""
    format: str = "auto"
    map_ids: str | None = None  # changes of the label files' ids, as in `pixelwise check --map-ids`
    # where pictures that nobody divided are divided by their names; None: so that a fifth is held out (in the folder
    # of a run from before this was written down: at 0.2)
    split_at: Annotated[float, Between(0, 1)] | None = None
    # shorter side of the pictures and side of the crops; None: from the pictures; 0: pictures as they are, and crops of
    # augment's crop_hw
    image_size: int | None = None
    augment: dict[str, Plain] = field(default_factory=dict)  # options of transforms.augment.Augment, or of
    # transforms.augment_volume.AugmentVolume
    volume: VolumePreprocess | None = (
        None  # of scans: how a network sees them, and the patches that it learns from
    )
    fold: tuple[Annotated[int, Between(0, 999)], Annotated[int, Between(2, 1000)]] | None = None
    # (i, k): the i-th of k parts is held out, divided by their names
    value_range: tuple[float, float] | None = (
        None  # values of pictures of more than 8 bits that become 0 and 255
    )
    class_balanced: bool = False  # pictures with rare classes are drawn more often

    # loss
    losses: dict[str, float] = field(default_factory=lambda: {"cross_entropy": 1.0, "dice": 1.0})
    loss_options: dict[str, dict[str, Plain]] = field(default_factory=dict)  # by the loss's name
    aux_weight: float = 0.4  # of auxiliary heads
    aux_decay: Annotated[float, Between(0, 1)] = (
        1.0  # each deeper head, aux2 and on, counts that times the one above
    )

    # optimiser
    optimizer: Literal["sgd", "adamw"] = "adamw"
    peak_lr: float = 1e-3
    weight_decay: float = 1e-4
    decay_norms: bool = False  # also decay the scale and shift of norms, and biases
    momentum: float = 0.9  # of SGD
    head_lr_factor: float = 1.0  # for all that is not encoder
    aux_lr_factor: float = 1.0  # for auxiliary heads, instead of head_lr_factor
    layer_decay: float = 1.0  # each layer of the encoder learns that much slower than the one above it
    schedule: Literal["poly", "cosine", "constant"] = "poly"  # after the warm-up
    warmup_steps: int = 0  # linear from almost 0
    warmup_ratio: float | None = None  # with it the schedule starts at step 0 too, times this up to 1
    poly_power: float = 0.9
    clip_norm: float | None = None  # largest gradient norm
    ema_decay: float | None = None  # validate and keep the exponential average of weights and statistics
    frozen_encoder: bool = False
    frozen_batch_norm: bool = False  # statistics stay; scale and shift still learn
    sync_batch_norm: bool = True  # statistics over all GPUs, where there are several

    # speed
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the forward pass alone
    channels_last: bool = False
    compile: bool = False
    workers: int = 1  # processes that load and augment

    # book-keeping
    validate_every: int | None = 0  # steps between validations; 0: at the end; None: an epoch
    save_minutes: float = 2.0  # between checkpoints; the first and last step have one
    trackers: tuple[str, ...] = ()  # tensorboard, wandb, mlflow: what Accelerate knows
    reasons: dict[str, str] = field(
        default_factory=dict
    )  # of a plan's decisions, by field (augment's as augment.NAME)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise InputError(
                f"a run needs steps or epochs, one of the two; got steps={self.steps}, epochs={self.epochs}"
            )
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name} must be a finite number, got {value}")
        for name in ("steps", "epochs", "batch_size", "accumulate", "peak_lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value}")
        not_negative = "image_size workers warmup_steps weight_decay validate_every save_minutes aux_weight"
        for name in not_negative.split():
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} must not be negative, got {value}")
        for name, most in (
            ("steps", 2**40),
            ("epochs", 2**40),
            ("image_size", 2**16),
            ("workers", 2**12),
            ("batch_size", 2**24),
            ("accumulate", 2**24),
        ):
            if (value := getattr(self, name)) is not None and value > most:
                raise InputError(f"{name} must be at most {most}, got {value}")
        if self.image_size is not None and 0 < self.image_size < SMALLEST:
            raise InputError(
                f"image_size must be 0 (pictures as they are) or at least {SMALLEST} pixels, got {self.image_size}"
            )
        sides = self.augment.get("crop_hw", [])
        for side in sides if isinstance(sides, (list, tuple)) else [sides]:
            if not isinstance(side, int) or not 0 < side <= 2**16:
                raise InputError(f"a crop must have sides from 1 to {2**16} pixels, got {sides}")
        if not self.losses:
            raise InputError("losses must name at least one, such as cross_entropy=1")
        for name, weight in self.losses.items():
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(
                    f"the weight of the loss {name} must be a finite number above 0, got {weight:g}"
                )
        for name, hint in _HINTS.items():
            choices = get_args(hint)
            if choices and all(isinstance(c, str) for c in choices) and getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise InputError(f"value_range must be two rising values, got {self.value_range}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if self.warmup_ratio is not None and not 0 <= self.warmup_ratio <= 1:
            raise InputError(f"warmup_ratio must lie in [0, 1], got {self.warmup_ratio}")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise InputError(
                f"warmup_steps must be below steps, got {self.warmup_steps} and {self.steps}; try {self.steps // 10}"
            )

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def total_steps(self, samples: int, processes: int = 1) -> int:
        """How many steps the run has on a data set of so many samples."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        steps = max(1, round(self.epochs * samples / self.samples_a_step(processes)))
        if self.warmup_steps >= steps:
            raise InputError(
                f"warmup_steps must be below the {steps} steps of the run, got {self.warmup_steps}; try {steps // 10}"
            )
        return steps

    def samples_a_step(self, processes: int = 1) -> int:
        return self.batch_size * self.accumulate * processes

    def steps_between_validations(self, samples: int, processes: int = 1) -> int:
        """Steps from one validation to the next. None in `validate_every` asks for an epoch, but at most 50 a run."""
        steps = self.total_steps(samples, processes)
        if self.validate_every is not None:
            return self.validate_every or steps
        return max(1, round(samples / self.samples_a_step(processes)), -(-steps // 50))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Read back; an unknown key is refused with the nearest known one, a value of another kind with its name."""
        return fit(values, cls, "this training configuration")

    @classmethod
    def from_json(cls, text: str | Path) -> TrainConfig:
        """The same from a text of JSON, or the path of a file of it."""
        what = (
            f"the training configuration {text}" if isinstance(text, Path) else "this training configuration"
        )
        return read(text, cls, what)

    def differs(self, other: TrainConfig, *, but: Collection[str] = ()) -> str:
        """The fields in which two runs differ, as part of a sentence; "" where they give the same numbers. but: fields
        that are not looked at."""
        return ", ".join(
            f"{f.name} {getattr(self, f.name)!r} instead of {getattr(other, f.name)!r}"
            for f in dataclasses.fields(self)
            if f.name not in MATTERS_NOT
            and f.name not in but
            and getattr(self, f.name) != getattr(other, f.name)
        )

    def same_length(self, other: TrainConfig) -> bool:
        """Whether two runs are as long, on the same data."""
        return all(getattr(self, name) == getattr(other, name) for name in LENGTH)


_HINTS = get_type_hints(TrainConfig)
