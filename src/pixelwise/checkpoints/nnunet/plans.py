"""What nnU-Net's plans.json and dataset.json say of a trained configuration: its network, and the card of its weights.

Versions 2.0 to 2.8 of nnU-Net. What is not known here is refused by name: a preprocessing that is nearly the one that a
network was trained with gives labels that nearly look right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pixelwise.errors import InputError, PixelwiseError, WeightsError
from pixelwise.inference.volume_preprocess import Normalise, Resample, VolumePreprocess, Whole
from pixelwise.labels import LabelSet
from pixelwise.untrusted import Between, Plain, fit
from pixelwise.weights.card import Card

Side = Annotated[int, Between(1, 4096)]
Count = Annotated[int, Between(1, 64)]
Width = Annotated[int, Between(1, 8192)]
Number = Annotated[float, Between(-1e9, 1e9)]
PerStage = int | list[int]
PerAxis = int | list[int] | list[list[int]]

STAGES = Annotated[int, Between(2, 16)]


@dataclass(frozen=True)
class Network:
    """What a network is built of, as `models.nnunet` takes it. residual: of its encoder."""

    residual: bool
    dims: Literal[2, 3]
    in_channels: int
    num_classes: int
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    convs: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    bias: bool
    norm: Literal["instance", "batch"] | None
    eps: float
    affine: bool
    slope: float
    nonlin_first: bool
    stem: int | None


@dataclass(frozen=True)
class _Properties:
    """Of the intensities of a channel, in the foreground of the training set."""

    mean: Number
    std: Number
    percentile_00_5: Number
    percentile_99_5: Number


@dataclass(frozen=True)
class _Dataset:
    labels: dict[str, int | list[int]]
    channel_names: dict[str, Any] | None = None
    modality: dict[str, Any] | None = None
    regions_class_order: list[int] | None = None
    licence: Any = None


@dataclass(frozen=True)
class _Plans:
    configurations: dict[str, Any]
    image_reader_writer: str
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    dataset_name: str = "a data set"
    plans_name: str = "nnUNetPlans"
    label_manager: str | None = None
    foreground_intensity_properties_per_channel: dict[str, Any] | None = None
    foreground_intensity_properties_by_modality: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Architecture:
    network_class_name: str
    arch_kwargs: dict[str, Any]


@dataclass(frozen=True)
class _Configuration:
    spacing: list[Annotated[float, Between(1e-4, 1e4)]]
    patch_size: list[Side]
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    resampling_fn_data: str
    resampling_fn_probabilities: str
    preprocessor_name: str = "DefaultPreprocessor"
    resampling_fn_data_kwargs: dict[str, Any] = field(default_factory=dict)
    resampling_fn_probabilities_kwargs: dict[str, Any] = field(default_factory=dict)
    architecture: _Architecture | None = None
    previous_stage: str | None = None
    # As versions before 2.3 wrote it
    UNet_class_name: str | None = None
    UNet_base_num_features: Width = 32
    unet_max_num_features: Width = 320
    n_conv_per_stage_encoder: list[Count] | None = None
    n_conv_per_stage_decoder: list[Count] | None = None
    pool_op_kernel_sizes: list[list[int]] | None = None
    conv_kernel_sizes: list[list[int]] | None = None


@dataclass(frozen=True)
class _Arguments:
    """Of the network's class, with its own defaults."""

    n_stages: STAGES
    features_per_stage: Width | list[Width]
    conv_op: str
    kernel_sizes: PerAxis
    strides: PerAxis
    n_conv_per_stage_decoder: Count | list[Count]
    n_conv_per_stage: Count | list[Count] | None = None
    n_blocks_per_stage: Count | list[Count] | None = None
    conv_bias: bool = False
    norm_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    deep_supervision: bool = False
    nonlin_first: bool = False
    block: str | None = None
    bottleneck_channels: int | list[int] | None = None
    stem_channels: Width | None = None


@dataclass(frozen=True)
class _Norm:
    eps: Annotated[float, Between(0, 1)] = 1e-5
    affine: bool | None = None
    momentum: Number = 0.1
    track_running_stats: bool | None = None


@dataclass(frozen=True)
class _Nonlin:
    negative_slope: Annotated[float, Between(0, 1)] = 0.01
    inplace: bool = False


@dataclass(frozen=True)
class _Spline:
    is_seg: Literal[False] = False
    order: Annotated[int, Between(0, 5)] = 3
    order_z: Literal[0, 1] = 0
    force_separate_z: bool | None = False


@dataclass(frozen=True)
class _Linear:
    is_seg: Literal[False] = False
    force_separate_z: bool | None = None
    memefficient_seg_resampling: bool = False
    mode: Literal["linear"] = "linear"
    aniso_axis_mode: Literal["nearest-exact"] = "nearest-exact"
    num_threads: int = 4


T = TypeVar("T")

READERS = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
"""By the name of what read the training set, how it turned scans."""

SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale",
    "RGBTo01Normalization": "rgb",
}


def read_plans(
    plans: Any, dataset: Any, configuration: str, mirror: Sequence[int] | None, largest: Sequence[Sequence[int]],
    what: str,
) -> tuple[Network, Card]:  # fmt: skip
    """The network and the card of a configuration.

    plans, dataset: what plans.json and dataset.json hold, by whoever wrote them. mirror: axes that the trainer mirrored
    in training, as its checkpoint says. largest: label values of which together only the largest component stays, group
    by group. what: in sentences. Raises WeightsError, in one of them, for what is not run here.
    """
    top, data = (
        _fit(plans, _Plans, f"the plans of {what}"),
        _fit(dataset, _Dataset, f"the dataset.json of {what}"),
    )
    config = _fit(
        _inherited(top.configurations, configuration, what),
        _Configuration,
        f"{configuration} in the plans of {what}",
    )
    dims = len(config.patch_size)
    if dims not in (2, 3) or len(config.spacing) != dims:
        raise WeightsError(
            f"{what} has patches of {len(config.patch_size)} sides and {len(config.spacing)} spacings; expected 2 or 3"
        )
    if config.previous_stage is not None:
        raise WeightsError(
            f"{what} is the second stage of a cascade, which takes the labels of {config.previous_stage!r} beside the "
            "scan and is not run here; give the folder of 3d_fullres or 3d_lowres"
        )
    if config.preprocessor_name != "DefaultPreprocessor":
        raise WeightsError(
            f"{what} was trained on what {config.preprocessor_name!r:.60} prepares; of nnU-Net, DefaultPreprocessor is "
            "known here"
        )
    if top.label_manager not in (None, "LabelManager"):
        raise WeightsError(
            f"{what} decides with {top.label_manager!r:.60}; of nnU-Net, LabelManager is known here"
        )
    labels, outputs = _labels(data, what)
    channels = _channels(top, data, config, what)
    num_classes = labels.num_classes - (outputs == "regions")
    network = _network(config, len(channels), num_classes, what)
    try:
        volume = _volume(top, config, channels, mirror, _groups(largest, labels, what), what)
        card = Card.of(
            labels, outputs=outputs, volume=volume, name=f"{top.dataset_name} {configuration}"[:200],
            licence=data.licence if isinstance(data.licence, str) and data.licence else "unknown",
        ).replace(
            architecture="ResidualEncoderUNet" if network.residual else "PlainConvUNet",
            origin=f"nnU-Net v2, {top.plans_name} {configuration}"[:200],
        )  # fmt: skip
    except WeightsError:
        raise
    except PixelwiseError as error:
        raise WeightsError(f"the plans of {what} cannot be used ({error})") from error
    return network, card


def _fit(values: Any, kind: type[T], what: str, unknown: Literal["leave", "refuse"] = "leave") -> T:
    return fit(fit(values, Plain, what, error=WeightsError), kind, what, error=WeightsError, unknown=unknown)


def _inherited(configurations: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    """A configuration with what it inherits from others."""
    found: dict[str, Any] = {}
    seen: list[str] = []
    at: Any = name
    while at is not None:
        if at in seen:
            raise WeightsError(
                f"in the plans of {what}, {name!r:.60} inherits from itself "
                f"({' -> '.join(map(str, [*seen, at]))[:200]})"
            )
        if not isinstance(at, str) or at not in configurations or not isinstance(configurations[at], Mapping):
            raise WeightsError(
                f"in the plans of {what} there is no configuration {at!r:.60}, only "
                + ", ".join(map(str, configurations))[:200]
            )
        seen.append(at)
        found = {**configurations[at], **found}
        at = configurations[at].get("inherits_from")
    return found


def _labels(data: _Dataset, what: str) -> tuple[LabelSet, Literal["exclusive", "regions"]]:
    given = dict(data.labels)
    ignore = given.pop("ignore", None)
    if given.get("background") != 0 or isinstance(given.get("background"), bool):
        raise WeightsError(
            f"the dataset.json of {what} has no label 'background' that is 0, got {given.get('background')!r:.60}"
        )
    regions = any(isinstance(value, list) and len(value) > 1 for value in given.values())
    values = {v for value in given.values() for v in (value if isinstance(value, list) else [value])}
    if ignore is not None and ignore != max(values) + 1:
        raise WeightsError(
            f"the dataset.json of {what} has the label 'ignore' {ignore!r:.40}, expected {max(values) + 1}, one "
            "above the others"
        )
    try:
        if regions:
            names = [name for name, value in given.items() if value != 0 and value != [0]]
            order = data.regions_class_order
            if order is None or len(order) != len(names):
                raise WeightsError(
                    f"the dataset.json of {what} has {len(names)} regions and a regions_class_order of "
                    f"{0 if order is None else len(order)} labels; expected one for each"
                )
            return LabelSet.of(["background", *names], ids=[0, *order]), "regions"
        plain = {
            name: value[0] if isinstance(value, list) and value else value for name, value in given.items()
        }
        ordered = sorted(plain.items(), key=lambda item: item[1])
        ids = [value for _, value in ordered]
        if ids != list(range(len(ids))):
            raise WeightsError(
                f"the dataset.json of {what} has the labels {ids!r:.80}; expected 0, 1, 2 and so on, each once"
            )
        return LabelSet.of([name for name, _ in ordered]), "exclusive"
    except WeightsError:
        raise
    except (PixelwiseError, TypeError, ValueError) as error:
        raise WeightsError(f"the labels in the dataset.json of {what} cannot be used ({error})") from error


def _groups(largest: Sequence[Sequence[int]], labels: LabelSet, what: str) -> tuple[tuple[int, ...], ...]:
    """Groups of label values as groups of classes."""
    for value in (value for group in largest for value in group):
        if value not in labels.ids:
            raise WeightsError(
                f"the postprocessing.json of {what} is about the label {value!r:.40}, of which dataset.json knows "
                "nothing"
            )
    return tuple(tuple(labels.ids.index(value) for value in group) for group in largest)


def _channels(top: _Plans, data: _Dataset, config: _Configuration, what: str) -> tuple[Normalise, ...]:
    names = data.channel_names if data.channel_names is not None else data.modality
    schemes, masks = config.normalization_schemes, config.use_mask_for_norm
    if not names or not len(names) == len(schemes) == len(masks):
        raise WeightsError(
            f"{what} has {len(names or ())} channels by its dataset.json, {len(schemes)} normalization_schemes and "
            f"{len(masks)} use_mask_for_norm; expected one for each channel"
        )
    properties = (
        top.foreground_intensity_properties_per_channel
        or top.foreground_intensity_properties_by_modality
        or {}
    )
    channels = []
    for i, (scheme, mask) in enumerate(zip(schemes, masks, strict=True)):
        if scheme not in SCHEMES:
            raise WeightsError(
                f"{what} was trained with {scheme!r:.60}, which is not known here; of nnU-Net's schemes "
                f"{', '.join(SCHEMES)} are"
            )
        kind = SCHEMES[scheme]
        if kind != "ct":
            channels.append(Normalise(kind, nonzero=kind == "zscore" and mask))  # type: ignore[arg-type]
            continue
        if str(i) not in properties:
            raise WeightsError(
                f"the plans of {what} say nothing of the intensities of channel {i}, which CTNormalization needs"
            )
        said = _fit(
            properties[str(i)], _Properties, f"what the plans of {what} say of the intensities of channel {i}"
        )
        try:
            channels.append(
                Normalise(
                    "ct",
                    low=said.percentile_00_5,
                    high=said.percentile_99_5,
                    mean=said.mean,
                    std=max(said.std, 1e-8),
                )
            )
        except InputError as error:
            raise WeightsError(f"the plans of {what} cannot be used ({error})") from error
    return tuple(channels)


def _volume(
    top: _Plans, config: _Configuration, channels: tuple[Normalise, ...], mirror: Sequence[int] | None,
    largest: tuple[tuple[int, ...], ...], what: str,
) -> VolumePreprocess:  # fmt: skip
    if top.image_reader_writer not in READERS:
        raise WeightsError(
            f"{what} was trained on what {top.image_reader_writer!r:.60} reads; scans are read here as "
            f"{', '.join(READERS)} do"
        )
    forward, backward = top.transpose_forward, top.transpose_backward
    if sorted(forward) != [0, 1, 2] or [forward[axis] for axis in backward if 0 <= axis < 3] != [0, 1, 2]:
        raise WeightsError(
            f"the plans of {what} change axes by {forward!r:.40} and back by {backward!r:.40}, which do not belong "
            "together"
        )
    planar = len(config.patch_size) == 2
    axes = tuple(axis + planar for axis in mirror or ())
    if not set(axes) <= set(range(int(planar), 3)):
        raise WeightsError(
            f"the checkpoint of {what} mirrors the axes {list(mirror or ())!r:.40}, which are not there"
        )
    spacing = (1.0,) * planar + tuple(config.spacing)
    patch = (1,) * planar + tuple(config.patch_size)
    return VolumePreprocess(
        channels, spacing, READERS[top.image_reader_writer], patch,  # type: ignore[arg-type]
        Whole(
            axes=forward,
            image=_resample(config.resampling_fn_data, config.resampling_fn_data_kwargs, what),
            logits=_resample(config.resampling_fn_probabilities, config.resampling_fn_probabilities_kwargs, what),
            planar=planar, mirror=axes, largest=largest,
        ),
    )  # fmt: skip


def _resample(name: str, given: dict[str, Any], what: str) -> Resample:
    said = f"how {name[:60]} resamples in the plans of {what}"
    if name == "resample_data_or_seg_to_shape":
        spline = _fit(given, _Spline, said, "refuse")
        return Resample("spline", spline.order, spline.order_z, spline.force_separate_z)
    if name == "resample_torch_fornnunet":
        return Resample("linear", 1, 0, _fit(given, _Linear, said, "refuse").force_separate_z)
    if name == "no_resampling_hack":
        return Resample("none")
    raise WeightsError(
        f"{what} resamples with {name!r:.60}; resample_data_or_seg_to_shape, resample_torch_fornnunet and "
        "no_resampling_hack are known here"
    )


def _network(config: _Configuration, in_channels: int, num_classes: int, what: str) -> Network:
    dims = len(config.patch_size)
    name, arguments = _arguments(config, what)
    residual = name == "ResidualEncoderUNet"
    conv = arguments.conv_op.rpartition(".")[2]
    if conv != f"Conv{dims}d":
        raise WeightsError(f"{what} convolves with {conv!r:.60} and has patches of {dims} sides")
    convs = arguments.n_blocks_per_stage if residual else arguments.n_conv_per_stage
    if convs is None:
        raise WeightsError(
            f"the plans of {what} do not say how many {'blocks' if residual else 'convolutions'} each stage of "
            f"{name} has"
        )
    if (
        arguments.bottleneck_channels is not None
        or (arguments.block or "BasicBlockD").rpartition(".")[2] != "BasicBlockD"
    ):
        raise WeightsError(f"{what} has bottleneck blocks, which are not built here; BasicBlockD is")
    norm = _named(arguments.norm_op, {"InstanceNorm": "instance", "BatchNorm": "batch"}, dims, "norm", what)
    said = _fit(arguments.norm_op_kwargs or {}, _Norm, f"the norm in the plans of {what}", "refuse")
    if said.track_running_stats not in (None, norm == "batch"):
        raise WeightsError(
            f"{what} has a norm with track_running_stats={said.track_running_stats}, which is not built"
        )
    nonlin = _named(arguments.nonlin, {"LeakyReLU": "leaky", "ReLU": "relu"}, None, "activation", what)
    if nonlin is None:
        raise WeightsError(f"{what} has no activation (nonlin is null), which is no network of nnU-Net's")
    slope = _fit(arguments.nonlin_kwargs or {}, _Nonlin, f"the activation in the plans of {what}", "refuse")
    n = arguments.n_stages
    found = Network(
        residual=residual, dims=dims, in_channels=in_channels, num_classes=num_classes,  # type: ignore[arg-type]
        features=_each(arguments.features_per_stage, n, "features_per_stage", what),
        kernels=_sides(arguments.kernel_sizes, n, dims, "kernel_sizes", what),
        strides=_sides(arguments.strides, n, dims, "strides", what),
        convs=_each(convs, n, "n_blocks_per_stage" if residual else "n_conv_per_stage", what),
        decoder_convs=_each(arguments.n_conv_per_stage_decoder, n - 1, "n_conv_per_stage_decoder", what),
        bias=arguments.conv_bias, norm=norm, eps=said.eps,  # type: ignore[arg-type]
        affine=said.affine if said.affine is not None else norm == "batch",
        slope=slope.negative_slope if nonlin == "leaky" else 0.0,
        nonlin_first=arguments.nonlin_first, stem=arguments.stem_channels if residual else None,
    )  # fmt: skip
    if any(side % 2 == 0 for kernel in found.kernels for side in kernel):
        raise WeightsError(f"{what} has convolutions of even sizes, {found.kernels!r:.80}; expected odd ones")
    for axis, side in enumerate(config.patch_size):
        step = 1
        for stride in found.strides:
            step *= stride[axis]
        if side % step:
            raise WeightsError(
                f"{what} has patches of {' x '.join(map(str, config.patch_size))}, which its strides do not divide"
            )
    return found


CLASSES = ("PlainConvUNet", "ResidualEncoderUNet")


def _arguments(config: _Configuration, what: str) -> tuple[str, _Arguments]:
    """The name of the network's class and its arguments; those of older plans in the words of newer ones."""
    if config.architecture is not None:
        name = config.architecture.network_class_name.rpartition(".")[2]
        given = dict(config.architecture.arch_kwargs)
    else:
        name = config.UNet_class_name or ""
        convs, pools = config.n_conv_per_stage_encoder, config.pool_op_kernel_sizes
        if (
            convs is None
            or pools is None
            or config.conv_kernel_sizes is None
            or config.n_conv_per_stage_decoder is None
        ):
            raise WeightsError(f"the plans of {what} do not say how its network is built")
        dims = len(config.patch_size)
        base, most = config.UNet_base_num_features, config.unet_max_num_features
        given = {
            "n_stages": len(convs), "features_per_stage": [min(base * 2**i, most) for i in range(len(convs))],
            "conv_op": f"Conv{dims}d", "kernel_sizes": config.conv_kernel_sizes, "strides": pools,
            "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": convs,
            "n_conv_per_stage_decoder": config.n_conv_per_stage_decoder, "conv_bias": True,
            "norm_op": f"InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "LeakyReLU", "nonlin_kwargs": {"inplace": True},
        }  # fmt: skip
    if name not in CLASSES:
        raise WeightsError(
            f"{what} has the network {name!r:.60}; of nnU-Net's, {' and '.join(CLASSES)} are built here"
        )
    other = "n_conv_per_stage" if name == "ResidualEncoderUNet" else "n_blocks_per_stage"
    return name, _fit(
        {key: value for key, value in given.items() if key != other}, _Arguments,
        f"the network in the plans of {what}", "refuse",
    )  # fmt: skip


def _named(given: str | None, known: Mapping[str, str], dims: int | None, kind: str, what: str) -> str | None:
    """The kind of layer that a class of torch is, by its last name alone; nothing is imported."""
    if given is None:
        return None
    last = given.rpartition(".")[2]
    found = next(
        (own for name, own in known.items() if last == (name if dims is None else f"{name}{dims}d")), None
    )
    if found is None:
        raise WeightsError(f"{what} has the {kind} {given!r:.60}; {' and '.join(known)} are built here")
    return found


def _each(given: int | list[int], count: int, name: str, what: str) -> tuple[int, ...]:
    values = (given,) * count if isinstance(given, int) else tuple(given)
    if len(values) != count:
        raise WeightsError(f"the plans of {what} give {len(values)} {name}, expected {count}")
    return values


def _sides(given: Any, count: int, dims: int, name: str, what: str) -> tuple[tuple[int, ...], ...]:
    """A number an axis for each stage."""
    values = [given] * count if isinstance(given, int) else given
    sides = tuple((one,) * dims if isinstance(one, int) else tuple(one) for one in values)
    if len(sides) != count or any(
        len(one) != dims or not all(1 <= side <= 64 for side in one) for one in sides
    ):
        raise WeightsError(
            f"the plans of {what} have {name} {given!r:.80}; expected {dims} whole numbers for each of {count} stages"
        )
    return sides
