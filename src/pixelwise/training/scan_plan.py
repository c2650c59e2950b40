"""The plan of a training on scans: from what they measure (`datasets.scan_fingerprint`) to a `TrainConfig`, with a
reason for each decision.

The rules are nnU-Net's (Isensee 2021), made to fit the machine: spacing and patch follow from the data, the size of the
network and of the batch from what there is to compute with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pixelwise.datasets.scan_fingerprint import COARSE, Channel, ScanFingerprint, Sides
from pixelwise.errors import InputError
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.terminal import counted
from pixelwise.training.config import TrainConfig
from pixelwise.training.plan import AS_ASKED, Machine, usual_workers, validations

VOXELS = {False: 96**3 // 4, True: 128**3}
"""Of a patch, at most: without a GPU and with one."""

BYTES_A_VOXEL = 400
"""Memory of a training step for each voxel of the batch and filter of the finest level, about."""

SEEN = 50
"""How often each scan is seen, by default."""

FILLED = 0.75
"""Share of voxels other than 0 below which those count for nothing in the normalisation: what lies around a head that
was cut free."""


def plan_scans(
    found: ScanFingerprint,
    given: Mapping[str, Any],
    machine: Machine,
    *,
    scans: int,
    held_out: int,
    classes: int = 2,
    steps: int | None = None,
    because: str = "",
) -> TrainConfig:
    """The configuration of a run on scans; the arguments are those of `plan.plan`. given: "patch" and "spacing", each
    three numbers (slices, rows, columns), are two besides. classes: how many there are, the background too.

    Raises InputError for values out of range, and for options that are of pictures.
    """
    return _Planning(found, dict(given), machine, scans, held_out, classes, steps, because).config()


class _Planning:
    def __init__(
        self, found: ScanFingerprint, given: dict[str, Any], machine: Machine, scans: int, held_out: int,
        classes: int, steps: int | None, because: str,
    ) -> None:  # fmt: skip
        self.print, self.machine, self.scans, self.held_out = found, machine, scans, held_out
        self.classes, self.steps, self.because = classes, steps, because
        self.patch_asked, self.spacing_asked = given.pop("patch", None), given.pop("spacing", None)
        for name, option in (("crop", "--crop"), ("image_size", "--image-size"), ("encoder", "--encoder")):
            if given.pop(name, None):
                raise InputError(f"{option} is of pictures; scans have --patch and --spacing: leave it out")
        self.augment_given: dict[str, Any] = dict(given.pop("augment", {}) or {})
        if given.get("weights") == "auto":
            given.pop("weights")
        self.given = given
        self.order: tuple[int, int, int] = (0, 1, 2)
        self.spacing: Sides | None = None
        self.pools, self.total = 3, 1
        self.values: dict[str, Any] = {}
        self.augment: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def config(self) -> TrainConfig:
        if self.given.get("volume") is None:
            self.values["volume"] = self.seen()
        self.network()
        self.batch()
        self.augmentation()
        self.loss()
        self.length()
        self.optimiser()
        self.values.setdefault("channels_last", self.given.get("channels_last", True))
        self.values.setdefault("workers", self.given.get("workers", usual_workers()))
        for key, value in self.augment_given.items():
            self.augment[key], self.reasons[f"augment.{key}"] = value, AS_ASKED
        for name in (
            self.given.keys() - self.reasons.keys() - {"data", "format", "map_ids", "workers", "trackers"}
        ):
            self.reasons[name] = AS_ASKED
        return TrainConfig.from_dict(
            {**self.given, **self.values, "augment": self.augment, "reasons": self.reasons}
        )

    def decide(self, name: str, value: Any, reason: str) -> Any:
        """Take a value, unless somebody asked for another; what is taken."""
        asked = name in self.given
        self.values[name] = self.given[name] if asked else value
        self.reasons[name] = AS_ASKED if asked else reason
        return self.values[name]

    def seen(self) -> dict[str, Any]:
        """How the network sees scans: orientation, spacing, patch and normalisation."""
        found = self.print
        spacing, why = self._spacing()
        self.reasons["volume.spacing"] = why
        orientation = None
        if found.oriented:
            orientation, why = "RAS", "all scans say how they lie"
            if spacing is not None and max(spacing) > COARSE * sorted(spacing)[1]:
                coarse = spacing.index(max(spacing))
                orientation = ("RAS", "RSA", "ASR")[coarse]
                order = {"RAS": (0, 1, 2), "RSA": (1, 0, 2), "ASR": (2, 0, 1)}[orientation]
                spacing = tuple(spacing[i] for i in order)  # type: ignore[assignment]
                why += "; the thick slices lie one behind the other"
                self.order = order
            self.reasons["volume.orientation"] = why
        else:
            self.reasons["volume.orientation"] = (
                "as they are stored: not all scans say how they lie in the body"
            )
        self.spacing = spacing
        patch = self._patch()
        channels = tuple(self._normalise(channel) for channel in found.channels) or (Normalise(),)
        self.reasons["volume.channels"] = (
            "; ".join(dict.fromkeys(self._why(c) for c in found.channels)) or "usual"
        )
        return VolumePreprocess(channels, spacing, orientation, patch).to_dict()

    def _spacing(self) -> tuple[Sides | None, str]:
        found = self.print
        if self.spacing_asked is not None:
            return self.spacing_asked, AS_ASKED
        if found.spacing is None:
            return None, "the scans' own: not all say it"
        spacing = list(found.spacing)
        coarse = max(range(3), key=lambda i: spacing[i])
        others = [i for i in range(3) if i != coarse]
        why = "the median of the scans" if found.differs else "that of all scans"
        thick = spacing[coarse] > COARSE * max(spacing[i] for i in others)
        few = COARSE * found.size[coarse] < min(found.size[i] for i in others)
        if thick and few and found.finest is not None and found.finest[coarse] < spacing[coarse]:
            spacing[coarse] = found.finest[coarse]
            why += "; of the thick slices the finest tenth"
        return (round(spacing[0], 4), round(spacing[1], 4), round(spacing[2], 4)), why

    def _patch(self) -> tuple[int, int, int]:
        """Sides in the shape of the median scan, multiples of what the network halves them by."""
        if self.patch_asked is not None:
            self.reasons["volume.patch"] = AS_ASKED
            self.pools = _pools(self.patch_asked)
            return self.patch_asked  # type: ignore[no-any-return]
        size = [max(1.0, side) for side in self.print.size] if self.print.scans else [64.0] * 3
        if self.spacing is not None and self.print.spacing is not None:
            before = self.print.spacing
            after = dict(zip(self.order, self.spacing, strict=True))
            size = [side * before[i] / after[i] for i, side in enumerate(size)]
        size = [size[i] for i in self.order]
        room = VOXELS[self.machine.gpu]
        share = min(1.0, (room / math.prod(size)) ** (1 / 3))
        sides = [side * share for side in size]
        thin = [side for side in sides if side < 16]
        if share < 1 and thin:  # what is thin already stays, and the others shrink more
            kept = [min(size[i], max(sides[i], min(16.0, size[i]))) for i in range(3)]
            scale = math.sqrt(room / math.prod(kept))
            sides = [k if s < 16 else s * min(1.0, scale) for k, s in zip(kept, sides, strict=True)]
        self.pools = _pools(sides)
        step = 2**self.pools
        grow = math.ceil if share == 1 else round
        patch = [max(step, grow(side / step) * step) for side in sides]
        whole = (
            "the median scan whole"
            if share == 1
            else f"in the shape of the median scan, up to {room:,} voxels"
        )
        self.reasons["volume.patch"] = f"{whole}; multiples of {step}"
        return patch[0], patch[1], patch[2]

    def _normalise(self, channel: Channel) -> Normalise:
        kind = channel.name.strip().lower()
        if kind == "ct":
            high = channel.high if channel.high > channel.low else channel.low + 1
            return Normalise("ct", low=channel.low, high=high, mean=channel.mean, std=max(channel.std, 1e-3))
        if kind in ("nonorm", "none"):
            return Normalise("none")
        if kind in ("rescale_to_0_1", "rescale"):
            return Normalise("rescale")
        return Normalise("zscore", nonzero=channel.filled < FILLED)

    def _why(self, channel: Channel) -> str:
        kind = self._normalise(channel).kind
        if kind == "ct":
            values = f"99 of 100 values of the classes lie from {channel.low:.0f} to {channel.high:.0f}"
            return f"dataset.json says CT: {values}"
        if kind != "zscore":
            return f"dataset.json says {channel.name}"
        if channel.filled < FILLED:
            return f"each scan by its own mean and deviation, of what is not 0, {channel.filled:.0%} of the voxels"
        return "each scan by its own mean and deviation"

    def network(self) -> None:
        self.decide(
            "model",
            "nonewnet_softmax",
            "a U-Net of two convolutions a level; it normalises each scan for itself",
        )
        options = {"width": 32 if self.machine.gpu else 12, "levels": self.pools, "deep_supervision": True}
        why = "there is a GPU" if self.machine.gpu else "there is no GPU, and wider ones take longer"
        if self.values["model"].startswith("nonewnet"):
            why = f"{options['width']} filters at first, as {why}; the patch can be halved {self.pools} times"
            self.decide("model_options", options, why)
        else:
            self.decide("model_options", {}, "the network's own")
        precise = "its sums stay in float32, and a step takes less time"
        if self.machine.bfloat16:
            self.decide("precision", "bfloat16", f"this machine multiplies in it: {precise}")
        else:
            self.decide("precision", "float32", "this machine does not multiply in bfloat16")

    def batch(self) -> None:
        batch, why = 2, "nnU-Net's smallest: large patches are worth more than many"
        if self.scans < batch:
            batch, why = max(1, self.scans), f"there is no more than {counted(self.scans, 'scan')}"
        self.decide("batch_size", batch, why)
        width = self.values["model_options"].get("width", 32)
        patch = (self.values.get("volume") or _as_dict(self.given["volume"]))["patch"]
        need = BYTES_A_VOXEL * width * self.values["batch_size"] * math.prod(patch) + 2**29
        if self.machine.memory and need > self.machine.memory:
            raise InputError(
                f"a step needs about {need / 2**30:.1f} GiB of memory and there are "
                f"{self.machine.memory / 2**30:.1f}; take a smaller --patch, such as 32,64,64"
            )
        self.reasons["batch_size"] += f"; about {need / 2**30:.1f} GiB of memory"

    def augmentation(self) -> None:
        """What is not the default of `AugmentVolume`."""
        patch = (self.values.get("volume") or _as_dict(self.given["volume"]))["patch"]
        spacing = self.spacing or (1.0, 1.0, 1.0)
        if spacing[0] > COARSE * max(spacing[1:]) or COARSE * patch[0] < max(patch):
            self.augment["in_plane"] = True
            self.reasons["augment.in_plane"] = "slices are thick, or few: they are not mixed"
        self.augment["foreground"] = 0.33
        self.reasons["augment.foreground"] = (
            "a third of the patches lie about a voxel of a class, each class alike"
        )

    def loss(self) -> None:
        self.decide(
            "losses",
            {"cross_entropy": 1.0, "dice": 1.0},
            "cross-entropy learns from the first step on, Dice counts what is scored",
        )
        if "dice" in self.values["losses"]:
            classes = {"classes": list(range(1, self.classes))}
            self.decide("loss_options", {"dice": classes}, "Dice of all classes but the background")
        self.decide(
            "aux_weight", 0.5, "coarser levels of the decoder learn the same, each with half of the weight"
        )
        self.decide("aux_decay", 0.5, "of the one above it")

    def length(self) -> None:
        batch = self.values["batch_size"] * self.given.get("accumulate", 1)
        if self.given.get("steps") is not None or self.given.get("epochs") is not None:
            name = "steps" if self.given.get("steps") is not None else "epochs"
            self.reasons[name] = AS_ASKED
            self.total = self.given.get("steps") or max(1, round(self.given["epochs"] * self.scans / batch))
            return
        patch = (self.values.get("volume") or _as_dict(self.given["volume"]))["patch"]
        views = min(4.0, max(1.0, self.print.voxels / max(1, self.print.scans) / math.prod(patch)))
        usual = max(250, round(SEEN * views * self.scans / batch))
        each = f"each of {counted(self.scans, 'scan')} is seen {SEEN} times, in {views:.1f} patches"
        why = f"{each}; --budget sets others"
        self.total = self.decide(
            "steps", usual if self.steps is None else self.steps, why if self.steps is None else self.because
        )

    def optimiser(self) -> None:
        steps = self.total
        self.decide("optimizer", "adamw", "it needs fewer steps than SGD, of which there are few")
        self.decide("peak_lr", 3e-3, "normalised layers of a small network bear it")
        self.decide("schedule", "poly", "it falls evenly, almost to nothing")
        self.decide("warmup_steps", min(steps - 1, steps // 20), "a twentieth of the steps")
        self.decide("clip_norm", 12.0, "nnU-Net's largest gradient")
        if steps >= 250:
            self.decide("ema_decay", 0.99, "the average of the last hundred or so steps scores better")
        interval = max(1, -(-steps // min(10, validations(steps))))
        self.decide(
            "validate_every", interval,
            f"{counted(-(-steps // interval), 'time')}, on {counted(self.held_out, 'scan')} kept back",
        )  # fmt: skip


def _pools(sides: Any) -> int:
    """How often the network may halve a patch: until its shortest side is about 4 voxels, 2 to 4 times."""
    return min(4, max(2, int(math.log2(max(min(sides), 8) / 4))))


def _as_dict(volume: Any) -> dict[str, Any]:
    return volume.to_dict() if isinstance(volume, VolumePreprocess) else dict(volume)
