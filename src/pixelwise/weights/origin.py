"""Origin: how a network was made, so that with its tensors it can be saved and made again anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pixelwise.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What `checkpoints.making.build` makes a network of.

    model: a name of `pixelwise.list_models()`, or a decoder's where arguments has "encoder". arguments: the builder's,
    but for those that only say where weights come from. beside: what the network's file held that no logit depends on,
    so that it can be written back; only `checkpoints.smp` has use for it, and it does not travel in our own files.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        """In words: "segformer_b0", "unet on resnet34"."""
        encoder = self.arguments.get("encoder")
        return self.model if encoder is None else f"{self.model} on {encoder}"


WEIGHTS_ARGUMENTS = (
    "weights", "weights_backbone", "encoder_weights", "progress", "pretrained", "pretrained_backbone"
)  # fmt: skip
"""Arguments of builders that say where weights come from, and nothing about the network."""


TIMM_FETCHES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Options of timm that open files and addresses."""


def note_origin(network: Any, model: str, arguments: Mapping[str, Any]) -> None:
    """Write down on a network how it was made; what was noted before about the same model is kept, and wins.

    That is how a builder whose arguments depend on each other says what it has settled for.
    """
    kept = {name: value for name, value in arguments.items() if name not in WEIGHTS_ARGUMENTS}
    noted = vars(network).get("origin")
    if isinstance(noted, Origin) and noted.model == model:
        kept |= noted.arguments
    vars(network)["origin"] = Origin(model, kept)  # a plain attribute, neither parameter nor child


def keep_beside(network: Any, beside: Mapping[str, Any]) -> None:
    """Note beside a network's origin what its file held that it has no use for."""
    vars(network)["origin"] = replace(origin_of(network), beside=beside)


def origin_of(network: Any) -> Origin:
    """How this network was made; InputError for one that nobody here has made."""
    origin = vars(network).get("origin")
    if not isinstance(origin, Origin):
        raise InputError(
            f"how this {type(network).__name__} was made is not known, so it cannot be made again from a file; make "
            "it with pixelwise.create_model, from_checkpoint or a builder of pixelwise.models"
        )
    return origin
