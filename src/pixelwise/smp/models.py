"""SMP's twelve model classes: its arguments, its parts and its state dicts over the networks of this package.

A model returns a tensor, the activation applied, as there; `model.network` is the same network with the contract of all
others here (a dictionary of logits). State dicts have SMP's names both ways, so files go to and fro.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pixelwise.checkpoints.making import plausible
from pixelwise.checkpoints.reading import read
from pixelwise.checkpoints.smp.config import CLASSES, OLD_NAMES, config_of, origin_from_config
from pixelwise.checkpoints.smp.folder import read_config, write_folder, write_readme
from pixelwise.checkpoints.smp.tensors import to_ours, to_theirs
from pixelwise.decoders.smp_parts import (
    ClassificationHead,
    DPTSegmentationHead,
    SegmentationHead,
    Shape,
    activation_of,
    decode,
    deepest,
    factor_of,
    features_for,
    finish,
    finishing_layers,
    logit_layers,
    upsampler,
)
from pixelwise.encoders import names
from pixelwise.errors import (
    InputError,
    PixelwiseError,
    ScriptError,
    UnknownNameError,
    WeightsError,
    first_line,
    suggest,
)
from pixelwise.smp.derived import SegmentationModel
from pixelwise.smp.scripted import ScriptedClassifier, ScriptedModel
from pixelwise.weights.hub import fetch_folder, is_hub_name, push_folder
from pixelwise.weights.origin import Origin, keep_beside, origin_of
from pixelwise.weights.store import PROMISES, check_kinds

if TYPE_CHECKING:
    from pixelwise.decoders.joined import Joined
    from pixelwise.decoders.network import EncoderDecoder

_ENCODER: dict[str, Any] = {"encoder_name": "resnet34", "encoder_depth": 5, "encoder_weights": "imagenet"}
_STEPS = (256, 128, 64, 32, 16)
_END: dict[str, Any] = {"in_channels": 3, "classes": 1, "activation": None}
_AUX: dict[str, Any] = {"aux_params": None}


_SHORT = {"unet": "u", "linknet": "link", "pspnet": "psp"}
"""What SMP calls some of its models in `model.name`."""


class Architecture(SegmentationModel):
    """image (n, in_channels, h, w), float -> (n, k, h, w) after the activation; with `aux_params` also labels (n, l).

    The arguments are SMP's, in its order; what is not among them goes to a timm encoder ("tu-..."). encoder_weights:
    None or False for random ones, which never touches the network; else what `encoders.create_encoder` takes.
    aux_params: classes, pooling ("avg" or "max"), dropout, activation of a classifier of the whole image. upsampling:
    SMP's factor behind the head; left as it is, the result has the size of the image at every depth.

    Raises TypeError for an unknown argument, naming the nearest, and what `decoders.compose.compose` raises.
    """

    arguments: ClassVar[dict[str, Any]] = {}
    """SMP's arguments and their defaults, in its order."""

    def __init_subclass__(cls) -> None:
        """What `inspect.signature` and `help` say of a class are SMP's arguments, unless it takes others of its own."""
        super().__init_subclass__()
        if cls.__init__ is not Architecture.__init__:
            own = list(inspect.signature(cls.__init__).parameters.values())
            cls.__signature__ = inspect.Signature(own[1:])  # type: ignore[attr-defined]
            return
        either = inspect.Parameter.POSITIONAL_OR_KEYWORD
        taken = [inspect.Parameter(name, either, default=default) for name, default in cls.arguments.items()]
        more = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
        cls.__signature__ = inspect.Signature([*taken, more])  # type: ignore[attr-defined]  # inspect reads it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.config = self._bind(args, kwargs)
        asked = self._asked()
        # They bring torchvision, which the import above need not wait for
        from pixelwise.decoders.compose import compose
        from pixelwise.decoders.joined import Joined
        from pixelwise.encoders.timm import TimmTransformer
        from pixelwise.smp.encoders.features import giving_as_smp
        from pixelwise.smp.encoders.timm_vit import TimmViTEncoder

        weights = self.config["encoder_weights"] or None
        if asked.model == "dpt" and weights == "imagenet":
            weights = True
        network: Any = compose(asked.model, encoder_weights=weights, **asked.arguments)
        depth = self.config["encoder_depth"]
        if asked.model != "dpt":
            giving_as_smp(network.encoder, in_channels=self.config["in_channels"], depth=depth)
        elif type(network.encoder) is TimmTransformer:
            network.encoder.__class__ = TimmViTEncoder  # the same network, which gives its tokens as well
        self.encoder, self.decoder = network.encoder, network.decoder
        self.segmentation_head = self._finished(network)
        aux = self.config["aux_params"]
        self.classification_head = (
            None if aux is None else ClassificationHead(network.encoder.channels[-1], **aux)
        )
        self._shape = Shape(len(network.encoder.strides), depth, tokens=asked.model == "dpt")
        self._built = {
            part: frozenset(self.get_submodule(part).state_dict()) for part in ("encoder", "decoder")
        }
        self.__dict__["_network"] = Joined(self, network, self._shape)  # not a child: its parts are
        kind, encoder = self._kind().__name__.lower(), str(self.config["encoder_name"])
        self.name = f"{_SHORT.get(kind, kind)}-{encoder.removeprefix('tu-') if kind == 'dpt' else encoder}"
        self.register_load_state_dict_pre_hook(_read_their_names)  # type: ignore[no-untyped-call]
        self.register_state_dict_post_hook(_write_their_names)  # type: ignore[no-untyped-call]

    @classmethod
    def _kind(cls) -> type[Architecture]:
        """The class of SMP that this is, or that a class of one's own is derived from."""
        return next(
            each for each in cls.__mro__ if MODEL_ARCHITECTURES_MAPPING.get(each.__name__.lower()) is each
        )

    def _finished(self, network: EncoderDecoder) -> nn.Module:
        """The network's head with what SMP's has behind it."""
        head, ends = network.segmentation_head, self.config["activation"]
        if not isinstance(head, nn.Sequential):
            return DPTSegmentationHead(head, ends)
        factor = self.config.get("upsampling")
        usual = factor is None or factor == self.arguments["upsampling"]
        if network.stride == 1:
            return SegmentationHead.of(head, nn.Identity(), ends)
        return SegmentationHead.of(head, upsampler(network.stride if usual else factor, whole=usual), ends)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "network":
            raise AttributeError(
                "model.network is made of the model's parts; assign model.encoder, decoder or segmentation_head"
            )
        super().__setattr__(name, value)
        network = self.__dict__.get("_network")
        if network is not None and vars(network)["model"] is self:
            network.take_parts()

    @property
    def network(self) -> Joined:
        """This model as a network like all others here, {"out": logits}: of the parts that it has, whoever made them.

        A head's enlargement corner to corner and its activation are not part of the logits, nor is the classifier.
        """
        network: Joined = self.__dict__["_network"]
        if vars(network)["model"] is not self:  # this is a replica, or a shallow copy
            self.__dict__["_network"] = network = network.of(self)
        network.take_parts()
        return network

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        kind, known = type(self).__name__, self.arguments
        if len(args) > len(known):
            raise TypeError(f"{kind} takes {len(known)} arguments, got {len(args)}")
        given = dict(zip(known, args, strict=False))
        for old, new in OLD_NAMES.items():
            if old in kwargs and new in known:
                warnings.warn(f"{old} is {new} by now; write that", DeprecationWarning, stacklevel=3)
                kwargs[new] = kwargs.pop(old)
        for key, value in kwargs.items():
            if key in given:
                raise TypeError(f"{kind} got {key!r} twice, by place and by name")
            given[key] = value
        encoder = given.get("encoder_name", known["encoder_name"])
        for key in set(given) - set(known):
            near = suggest(key, known)
            if names.resolve(encoder).kind != "timm" or near.startswith("did you mean"):
                raise TypeError(f"{kind} has no argument {key!r}; {near}")
        return {**known, **given}

    def _asked(self) -> Origin:
        shape = {key: value for key, value in self.config.items() if key != "position_attention"}
        origin = origin_from_config({"_model_class": self._kind().__name__, **shape})
        if "position_attention" in self.config:
            origin.arguments["position_attention"] = self.config["position_attention"]
        return origin

    @property
    def pixelwise_network(self) -> EncoderDecoder:
        """What Segmenter, save and export take of this: `network`, whose answers are logits."""
        return self.network

    @property
    def origin(self) -> Origin:
        """How `network` was made; `pixelwise.save(model.network, path)` writes it without the activation."""
        return origin_of(self.network)

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` takes in the place of this, with the same tensors."""
        if not self._is_torch_scriptable:
            raise ScriptError(
                f"{type(self).__name__} cannot be scripted, nor can SMP's; use torch.jit.trace or torch.export"
            )
        parts, classifier = (self.encoder, self.decoder, self.segmentation_head), self.classification_head
        scripted = ScriptedModel(*parts) if classifier is None else ScriptedClassifier(*parts, classifier)
        scripted.training = self.training  # of the parts, each has its own
        return scripted

    def forward(self, image: Tensor) -> Any:
        tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not (tracing or torch.compiler.is_compiling()):  # what those make is for other sizes too
            self.check_input_shape(image)
        size_hw = image.shape[-2], image.shape[-1]
        features = features_for(self.decoder, self.encoder, image, self._shape)
        decoded = decode(self.decoder, features, size_hw, self._shape)
        mask = finish(self.segmentation_head, decoded, size_hw)
        if self.classification_head is None:
            return mask
        return mask, self.classification_head(deepest(features))

    def train(self, mode: bool = True) -> Architecture:
        super().train(mode)
        self.network.train(mode)  # knows whether the encoder is frozen
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Tensors in SMP's names. strict: False leaves out those that are missing, surplus or of another shape."""
        self.__dict__["_strict"] = strict
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        finally:
            del self.__dict__["_strict"]

    def freeze_encoder(self) -> None:
        """Keep the encoder as it is, in evaluation mode whatever `train` and `eval` are told."""
        self.network.freeze_encoder()

    def unfreeze_encoder(self) -> None:
        """Let the encoder learn again. As in SMP its norms then train, whatever mode the model is in; `eval()` and
        `train()` are heeded from here on.
        """
        self.network.freeze_encoder(False)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        dataset: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_options: Any,
    ) -> str | None:
        """Write `config.json`, `model.safetensors` and, where there is none, a `README.md`, as SMP does.

        SMP's `from_pretrained` and ours read them. dataset, metrics: what it was trained on and how well it did, for
        the README; also as items of model_card_kwargs. push_to_hub: the same to the Hub, as `repo_id` or under the
        folder's name; then push_options are those of `push_to_hub`, and the commit's URL is returned.

        A head replaced by one for another number of classes, or with another activation, is written as such. With
        other parts than arguments can make, a warning says that the file loads only where they are assigned first.
        """
        card = _card(model_card_kwargs, dataset=dataset, metrics=metrics)
        if push_options and not push_to_hub:
            raise TypeError(
                f"save_pretrained() has no argument {next(iter(push_options))!r} without push_to_hub=True"
            )
        config = self._config_as_it_is()
        misfit = self._misfit(config)
        if misfit is not None:
            warnings.warn(
                f"config.json cannot say which parts this {type(self).__name__} has ({misfit}); to open the file, "
                "build the model, assign the same parts, and use load_state_dict",
                UserWarning,
                stacklevel=2,
            )
        config.pop("position_attention", None)
        config_of(self.origin)  # raises for what SMP cannot have
        write_folder(config, self.state_dict(), save_directory)
        if not (Path(save_directory) / "README.md").exists():
            write_readme(config, save_directory, **card)
        elif any(value is not None for value in card.values()):
            warnings.warn(
                f"README.md in {os.fspath(save_directory)} stays as it is, without the data set and scores; delete it "
                "to have a new one written",
                UserWarning,
                stacklevel=2,
            )
        if not push_to_hub:
            return None
        name = repo_id or Path(save_directory).resolve().name
        return self.push_to_hub(name, model_card_kwargs=card, **push_options)

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> str:
        """Put what `save_pretrained` writes onto the Hugging Face Hub; the URL of the commit.

        repo_id: "owner/name", or a name of one's own. model_card_kwargs: dataset and metrics. options: commit_message,
        private, token, branch, create_pr, allow_patterns, ignore_patterns, delete_patterns (`weights.hub.push_folder`).
        """
        card = _card(model_card_kwargs)
        return push_folder(lambda folder: self.save_pretrained(folder, **card), repo_id, **options)

    def _config_as_it_is(self) -> dict[str, Any]:
        """`config` with what assigned heads say of themselves; WeightsError for an activation without a name."""
        config = {"_model_class": self._kind().__name__, **self.config, "encoder_weights": None}
        ends, aux = finishing_layers(self.segmentation_head), self.classification_head
        config["activation"] = activation_of(ends, config["activation"])
        if "upsampling" in config and not any(getattr(layer, "whole", False) for layer in ends):
            config["upsampling"] = factor_of(ends)
        with contextlib.suppress(InputError):  # there is nothing to count classes by
            config["classes"] = self.network.num_classes
        if aux is None or config["aux_params"] is None:
            config["aux_params"] = None
        else:
            linear = [module.out_features for module in aux.modules() if isinstance(module, nn.Linear)]
            config["aux_params"] = {**config["aux_params"], **({"classes": linear[-1]} if linear else {})}
        return config

    def _misfit(self, config: Mapping[str, Any]) -> str | None:
        """What a model of that config has otherwise, a tensor or a layer as it prints itself; None if nothing."""
        with torch.device("meta"):
            anew = self._kind()(**{key: value for key, value in config.items() if not key.startswith("_")})
        own, other = (
            {name: tuple(t.shape) for name, t in model.named_parameters()} for model in (self, anew)
        )
        for name in {**own, **other}:
            if own.get(name) != other.get(name):
                return f"{name} is {own.get(name, 'missing')}, built anew {other.get(name, 'missing')}"
        for line, built in zip(self._printed(), anew._printed(), strict=False):
            if line != built:
                return f"it has {line.strip()} where it is built anew with {built.strip()}"
        return None

    def _printed(self) -> list[str]:
        """The parts, line by line, whoever made the head."""
        ends = finishing_layers(self.segmentation_head)
        kept = [str(part) for part in (self.encoder, self.decoder, *logit_layers(self.segmentation_head))]
        return "\n".join([*kept, str(activation_of(ends, None)), str(factor_of(ends))]).splitlines()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, strict: bool = True, **options: Any
    ) -> Architecture:  # fmt: skip
        """See the function of this name; the model must be of this class."""
        model = from_pretrained(pretrained_model_name_or_path, strict=strict, **options)
        if not isinstance(model, cls):
            raise WeightsError(
                f"{pretrained_model_name_or_path} holds a {type(model).__name__}, not a {cls.__name__}"
            )
        return model


class Unet(Architecture):
    requires_divisible_input_shape = False
    arguments: ClassVar = {
        **_ENCODER, "decoder_use_norm": "batchnorm", "decoder_channels": _STEPS, "decoder_attention_type": None,
        "decoder_interpolation": "nearest", **_END, **_AUX,
    }  # fmt: skip


class UnetPlusPlus(Architecture):
    _is_torch_scriptable = False
    arguments: ClassVar = Unet.arguments


class MAnet(Architecture):
    """position_attention: "smp", as trained there, or "corrected" (`decoders.manet`)."""

    arguments: ClassVar = {
        **_ENCODER, "decoder_use_norm": "batchnorm", "decoder_channels": _STEPS, "decoder_pab_channels": 64,
        "decoder_interpolation": "nearest", **_END, **_AUX, "position_attention": "smp",
    }  # fmt: skip


class Linknet(Architecture):
    arguments: ClassVar = {**_ENCODER, "decoder_use_norm": "batchnorm", **_END, **_AUX}


class FPN(Architecture):
    arguments: ClassVar = {
        **_ENCODER, "decoder_pyramid_channels": 256, "decoder_segmentation_channels": 128,
        "decoder_merge_policy": "add", "decoder_dropout": 0.2, "decoder_interpolation": "nearest", **_END,
        "upsampling": 4, **_AUX,
    }  # fmt: skip


class PSPNet(Architecture):
    arguments: ClassVar = {
        "encoder_name": "resnet34", "encoder_weights": "imagenet", "encoder_depth": 3, "psp_out_channels": 512,
        "decoder_use_norm": "batchnorm", "psp_dropout": 0.2, **_END, "upsampling": 8, **_AUX,
    }  # fmt: skip


class PAN(Architecture):
    arguments: ClassVar = {
        **_ENCODER, "encoder_output_stride": 16, "decoder_channels": 32, "decoder_interpolation": "bilinear", **_END,
        "upsampling": 4, **_AUX,
    }  # fmt: skip


class DeepLabV3(Architecture):
    arguments: ClassVar = {
        **_ENCODER, "encoder_output_stride": 8, "decoder_channels": 256, "decoder_atrous_rates": (12, 24, 36),
        "decoder_aspp_separable": False, "decoder_aspp_dropout": 0.5, **_END, "upsampling": None, **_AUX,
    }  # fmt: skip


class DeepLabV3Plus(Architecture):
    arguments: ClassVar = {
        **_ENCODER, "encoder_output_stride": 16, "decoder_channels": 256, "decoder_atrous_rates": (12, 24, 36),
        "decoder_aspp_separable": True, "decoder_aspp_dropout": 0.5, **_END, "upsampling": 4, **_AUX,
    }  # fmt: skip


class UPerNet(Architecture):
    arguments: ClassVar = {
        **_ENCODER, "decoder_channels": 256, "decoder_use_norm": "batchnorm", **_END, "upsampling": 4, **_AUX,
    }  # fmt: skip


class Segformer(Architecture):
    arguments: ClassVar = {**_ENCODER, "decoder_segmentation_channels": 256, **_END, "upsampling": 4, **_AUX}


class DPT(Architecture):
    _is_torch_scriptable = False
    arguments: ClassVar = {
        "encoder_name": "tu-vit_base_patch16_224.augreg_in21k", "encoder_depth": 4, "encoder_weights": "imagenet",
        "encoder_output_indices": None, "decoder_readout": "cat",
        "decoder_intermediate_channels": (256, 512, 1024, 1024), "decoder_fusion_channels": 256, **_END, **_AUX,
    }  # fmt: skip


MODEL_ARCHITECTURES_MAPPING: dict[str, type[Architecture]] = {
    model.__name__.lower(): model
    for model in (
        Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, PAN, UPerNet, Segformer, DPT
    )
}  # fmt: skip


def create_model(
    arch: str,
    encoder_name: str = "resnet34",
    encoder_weights: Any = "imagenet",
    in_channels: int = 3,
    classes: int = 1,
    **kwargs: Any,
) -> Architecture:
    """The model of a class given by its name, in upper or lower case; UnknownNameError, with the nearest, for none."""
    if arch.lower() not in MODEL_ARCHITECTURES_MAPPING:
        raise UnknownNameError("architecture", arch, MODEL_ARCHITECTURES_MAPPING)
    return MODEL_ARCHITECTURES_MAPPING[arch.lower()](
        encoder_name=encoder_name, encoder_weights=encoder_weights, in_channels=in_channels, classes=classes, **kwargs
    )  # fmt: skip


def _card(given: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
    """What a README says beside the arguments: dataset and metrics, from either place."""
    card = {**more, **(given or {})}
    for key in set(card) - {"dataset", "metrics"}:
        raise TypeError(f"model_card_kwargs has no item {key!r}; it takes dataset and metrics")
    return card


def from_pretrained(
    pretrained_model_name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    strict: bool = True,
    map_location: Any = "cpu",
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    **changes: Any,
) -> Architecture:
    """The model of a folder with config.json and model.safetensors, or of a repository on the Hugging Face Hub.

    A folder is read and nothing else happens. A repository is fetched, or taken from the Hub's cache where it is;
    with PIXELWISE_OFFLINE or HF_HUB_OFFLINE set, only the latter. changes: arguments other than those of config.json,
    such as activation. strict: False leaves out tensors that do not fit, with a warning. map_location: the device of
    the model. The others are huggingface_hub's.

    Raises WeightsError for a folder without those files and for tensors that do not fit, DownloadError.
    """
    place = os.fspath(pretrained_model_name_or_path)
    folder = Path(place)
    if not folder.is_dir():
        if not is_hub_name(place):
            raise WeightsError(
                f"there is no folder {place!r}, and it is no name of a repository either, such as 'owner/model'"
            )
        folder = fetch_folder(
            place, revision, token=token, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only,
        )  # fmt: skip
    config = read_config(folder)
    if config is None:
        raise WeightsError(f"the folder {folder} holds no config.json of SMP, which names the model's class")
    kind = str(config["_model_class"])
    if kind.lower() not in MODEL_ARCHITECTURES_MAPPING:
        raise UnknownNameError("class of SMP", kind, CLASSES)
    kept = {key: value for key, value in config.items() if not key.startswith("_") and value is not None}
    make, arguments = MODEL_ARCHITECTURES_MAPPING[kind.lower()], {**kept, "encoder_weights": None, **changes}
    tensors = read(folder)
    try:
        with torch.device("meta"), plausible(len(tensors)):
            needed = sum(tensor.nbytes for tensor in make(**arguments).state_dict().values())
        if needed > PROMISES * sum(tensor.nbytes for tensor in tensors.values()) + 2**20:
            raise WeightsError(
                f"config.json in {folder} asks for a network of {needed:,} bytes, and the tensors beside it are of "
                "another"
            )
        model = make(**arguments)
    except PixelwiseError:
        raise
    except Exception as error:  # whatever a builder meets in arguments that nobody has looked at
        if changes and isinstance(error, TypeError):
            raise
        raise WeightsError(
            f"config.json in {folder} is of a model that cannot be built: {first_line(error)}"
        ) from error
    try:
        model.load_state_dict(tensors, strict=strict)
    except RuntimeError as error:
        lines = str(error).splitlines()
        more = f", and {len(lines) - 2} more like it" if len(lines) > 2 else ""
        raise WeightsError(
            f"the tensors in {folder} are not those of the model that its config.json names: "
            f"{' '.join(lines[:2][-1].split()).rstrip('. ')}{more}; strict=False leaves out what does not fit"
        ) from error
    return model.eval().to(map_location)


def _write_their_names(model: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    """After `state_dict`: our encoder's names become SMP's, and what SMP has and does not use is added."""
    assert isinstance(model, Architecture)
    own = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
    kept, built = _apart(own, _assigned(model))
    theirs = to_theirs(model.origin, built, model.origin.beside.get("tensors"))
    theirs = _apart(theirs, _assigned(model))[1]
    state.update({prefix + key: tensor for key, tensor in {**theirs, **kept}.items()})


def _assigned(model: Architecture) -> tuple[str, ...]:
    """The prefixes of parts whose tensors are not those of the part that was built; their names are left alone."""
    now = {part: frozenset(model.get_submodule(part).state_dict()) for part in model._built}
    return tuple(f"{part}." for part, names in model._built.items() if now[part] != names)


_PARTS = ("encoder.", "decoder.", "segmentation_head.", "classification_head.")


def _apart(tensors: Mapping[str, Any], prefixes: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those whose names begin like that or are of no part that SMP has, and the others."""
    chosen = {k: t for k, t in tensors.items() if k.startswith(prefixes) or not k.startswith(_PARTS)}
    return chosen, {key: tensor for key, tensor in tensors.items() if key not in chosen}


def _read_their_names(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before tensors are loaded: SMP's names become ours; a wrong number of classes is said to be one."""
    assert isinstance(model, Architecture)
    given = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
    own = model.network.state_dict()
    if model.classification_head is not None:
        own = own | {f"classification_head.{k}": t for k, t in model.classification_head.state_dict().items()}
    classifier = () if model.classification_head is None else ("classification_head.",)
    kept, built = _apart(given, (*_assigned(model), *classifier))
    ours, unused = to_ours(model.origin, built, model.encoder.state_dict())
    ours |= kept
    keep_beside(model.network, {"tensors": unused})
    check_kinds(ours, own, "the checkpoint")
    wrong = [key for key in ours if key in own and own[key].shape != ours[key].shape]
    # None: loaded as a part of something, which says what does not fit
    strict = model.__dict__.get("_strict")
    if strict:
        for key in wrong:
            same_but_first = ours[key].shape[1:] == own[key].shape[1:]
            if key.startswith("segmentation_head.") and same_but_first:
                raise WeightsError(
                    f"these weights have {len(ours[key])} classes, the model {len(own[key])}; build it with "
                    f"classes={len(ours[key])}, or pass strict=False to leave the head as it is"
                )
    elif strict is False and wrong:
        warnings.warn(
            f"left as they are, because shapes differ: {', '.join(wrong)}", UserWarning, stacklevel=4
        )
        ours = {key: tensor for key, tensor in ours.items() if key not in wrong}
    state.update({prefix + key: tensor for key, tensor in ours.items()})
