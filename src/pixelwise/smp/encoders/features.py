"""Encoders of ours that give what SMP's give, under SMP's names of tensors.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pixelwise.checkpoints.smp.tensors import to_ours, to_theirs
from pixelwise.encoders.mit import MixTransformer
from pixelwise.encoders.named import FirstStages
from pixelwise.encoders.staged import StagedEncoder, dilate
from pixelwise.encoders.timm import TimmEncoder, TimmTransformer
from pixelwise.errors import InputError
from pixelwise.smp.encoders.scripted import ScriptedStages, ScriptedTimm, TransformerStage, ahead
from pixelwise.weights.origin import Origin

CLASSIFIERS = ("fc.", "_fc.", "classifier.", "last_linear.", "head.")
"""How names of tensors begin in networks that classify images, for what comes after their features."""


class SmpEncoder(nn.Module):
    """What an encoder has in SMP: image (n, c, h, w) -> [image, feature of stride 2, ...], `depth` + 1 of them.

    A stride that the network lacks is a map (n, 0, h/2, w/2); where its own features begin at stride 1, the image is
    left out. Plain transformers give features alone, all of one stride.
    """

    _is_torch_scriptable: ClassVar[bool] = False
    _is_torch_exportable: ClassVar[bool] = True
    _is_torch_compilable: ClassVar[bool] = True

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    _made: dict[str, Any]

    @property
    def out_channels(self) -> list[int]:
        """Of each feature, 0 for a map without channels."""
        missing = self._missing()
        if missing is None:
            return list(self.channels)
        return [self._made["in_channels"], *[0] * missing, *self.channels]

    @property
    def output_stride(self) -> int:
        return self.strides[-1]

    def _missing(self) -> int | None:
        """How many maps stand between the image and the first feature; None where the image is not there either."""
        depth = self._made["depth"]
        plain = len(set(self.strides)) == 1 < len(self.strides)
        return None if plain or len(self.channels) > depth else depth - len(self.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        features: list[Tensor] = super().forward(image)  # of the network that this is mixed into
        missing = self._missing()
        return features if missing is None else [*ahead(image, missing), *features]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Also of a whole network that classifies images: what classifies in it is left out, as in SMP."""
        own = self.state_dict()
        kept = {k: t for k, t in state_dict.items() if k in own or not k.startswith(CLASSIFIERS)}
        return super().load_state_dict(kept, strict=strict, assign=assign)

    def _get_name(self) -> str:
        """It prints itself as the network that it is."""
        return type(self).__bases__[1].__name__


class _Staged(SmpEncoder, StagedEncoder):
    _is_torch_scriptable: ClassVar[bool] = True

    def make_dilated(self, output_stride: int) -> None:
        """Turn strides above `output_stride`, 8 or 16, into dilation, the way SMP does; ValueError where none can."""
        if output_stride not in (8, 16):
            raise InputError(f"output_stride must be 8 or 16, got {output_stride}")
        undilated = [self.strides[0] * 2**i for i in range(len(self.strides))]
        dilate(self, self.paths, undilated, output_stride, rule="smp")
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)

    def __prepare_scriptable__(self) -> nn.Module:
        stages = [[self.get_submodule(path) for path in stage] for stage in self.paths]
        missing = self._missing()
        return ScriptedStages(stages, -1 if missing is None else missing, self.rectified)


class _Transformer(SmpEncoder):
    _is_torch_scriptable: ClassVar[bool] = True

    def __prepare_scriptable__(self) -> nn.Module:
        parts: list[list[Any]] = [
            [self.get_submodule(f"{part}{i}") for part in ("patch_embed", "block", "norm")]
            for i in range(1, len(self.channels) + 1)
        ]
        missing = self._missing()
        stages = [[TransformerStage(*stage)] for stage in parts]
        return ScriptedStages(stages, -1 if missing is None else missing, rectified=False)


class _MixTransformer(_Transformer, MixTransformer): ...


class _FirstStages(_Transformer, FirstStages): ...


class _Timm(SmpEncoder, TimmEncoder):
    """At any size it has the features that timm's network gives for it, as SMP's has, not those of the padded image;
    where that fails, as SMP's does, the latter.
    """

    _is_torch_scriptable: ClassVar[bool] = True

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.size_hw is not None:
            return super().forward(image)
        if torch.compiler.is_exporting():  # which must not ask for the size
            return self._unpadded(image)
        (h, w), (mh, mw) = image.shape[-2:], self.multiple_hw
        if h % mh or w % mw:
            with contextlib.suppress(AssertionError, RuntimeError, ValueError):
                return self._unpadded(image)
        return super().forward(image)

    def _unpadded(self, image: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.model(image)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        missing = self._missing()
        return features if missing is None else [*ahead(image, missing), *features]

    def on_grid(self, image: Tensor) -> list[Tensor]:
        """The features as encoders here give them, of the padded image."""
        return TimmEncoder.forward(self, image)

    def __prepare_scriptable__(self) -> nn.Module:
        missing = self._missing()
        return ScriptedTimm(self.model, -1 if missing is None else missing, self.channels_last)


class _TimmTransformer(SmpEncoder, TimmTransformer): ...


KINDS: dict[type[nn.Module], type[SmpEncoder]] = {
    StagedEncoder: _Staged, MixTransformer: _MixTransformer, FirstStages: _FirstStages, TimmEncoder: _Timm,
    TimmTransformer: _TimmTransformer,
}  # fmt: skip


def giving_as_smp(encoder: nn.Module, *, in_channels: int, depth: int) -> Any:
    """The encoder itself, made with these arguments, now giving what SMP's would; its tensors keep our names."""
    smp: Any = encoder
    smp.__class__ = KINDS[type(encoder)]  # the same network with another forward
    smp._made = {"in_channels": in_channels, "depth": depth}
    return smp


def as_smp(
    encoder: nn.Module, name: str, *, in_channels: int, depth: int, options: Mapping[str, Any]
) -> SmpEncoder:
    """`giving_as_smp`, with SMP's names of tensors in its state dict."""
    smp: Any = giving_as_smp(encoder, in_channels=in_channels, depth=depth)
    arguments = {
        "encoder": name,
        "in_channels": in_channels,
        "encoder_depth": depth,
        "encoder_options": dict(options),
    }
    smp.__dict__["_origin"] = Origin("fpn", arguments)  # any decoder: what follows reads the encoder's part
    smp.register_state_dict_post_hook(_write_their_names)
    smp.register_load_state_dict_pre_hook(_read_their_names)
    made: SmpEncoder = smp
    return made


def _write_their_names(encoder: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    own = {f"encoder.{key[len(prefix) :]}": state.pop(key) for key in list(state) if key.startswith(prefix)}
    theirs = to_theirs(vars(encoder)["_origin"], own, vars(encoder).get("_unused"))
    state.update({prefix + key.removeprefix("encoder."): tensor for key, tensor in theirs.items()})


def _read_their_names(encoder: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    given = {f"encoder.{key[len(prefix) :]}": state.pop(key) for key in list(state) if key.startswith(prefix)}
    wanted = {name for name, _ in [*encoder.named_parameters(), *encoder.named_buffers()]}
    ours, unused = to_ours(vars(encoder)["_origin"], given, wanted)
    vars(encoder)["_unused"] = unused
    state.update({prefix + key.removeprefix("encoder."): tensor for key, tensor in ours.items()})
