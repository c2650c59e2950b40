"""The network in a checkpoint of nnU-Net v2, rebuilt after its plan, and its card."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from pixelwise.checkpoints.making import plausible
from pixelwise.checkpoints.nnunet.folder import Fold, Model
from pixelwise.checkpoints.nnunet.plans import Network, read_plans
from pixelwise.errors import PixelwiseError, PixelwiseWarning, WeightsError, first_line
from pixelwise.models.nnunet import (
    Layers,
    NnUNet,
    NnUNetMean,
    NnUNetSlicewise,
    Sizes,
    plain_conv_unet,
    residual_encoder_unet,
)
from pixelwise.untrusted import Between, Plain, fit, read
from pixelwise.weights import store
from pixelwise.weights.card import Card

COPIES = re.compile(r"decoder\.encoder\.|.*\.all_modules\.")
"""Names under which a checkpoint has tensors a second and a third time."""

KNOWN_TRAINERS = re.compile(
    r"nnUNetTrainer(_?(\d+epochs?|NoMirroring|NoDeepSupervision|NoDA|DA5|DASegOrd0|DA5ord0|DA5Segord0|onlyMirror01"
    r"|1500ep|Adam|Adan|VanillaAdam|CosAnneal|[13]en[1-4]|noDummy2DDA|probabilisticOversampling|0\d\d|warmup|CELoss"
    r"|DiceLoss|DiceCELoss|noSmooth|DiceTopK10Loss|Topk10Loss|LS01|Benchmark|noDataLoading))*"
)
"""Those that come with nnU-Net and train the network of the plans."""

LARGEST_ONLY = "remove_all_but_largest_component_from_segmentation"


def open_fold(model: Model, fold: Fold) -> tuple[nn.Module, Card]:
    """The network of one fold with its weights, in evaluation mode, and its card; no pickle is run.

    Of a planar model it takes volumes, slice by slice. Raises WeightsError, in one sentence, for what cannot be read or
    is not run here.
    """
    what = model.what
    with fold.file() as path:
        content = store.load_content(path)
    said = content.get("init_args") if isinstance(content, Mapping) else None
    if not isinstance(said, Mapping) or not isinstance(content.get("network_weights"), Mapping):
        raise WeightsError(
            f"{what} holds no checkpoint of nnU-Net v2 ({fold.name}): network_weights and init_args are not there"
        )
    configuration = said.get("configuration")
    if not isinstance(configuration, str):
        raise WeightsError(
            f"the checkpoint of {what} does not name its configuration, got {configuration!r:.60}"
        )
    _warn_of_trainer(content.get("trainer_name"), what)
    plans = said.get("plans") if model.plans is None else _json(model.plans, "plans.json", what)
    dataset = (
        said.get("dataset_json") if model.dataset is None else _json(model.dataset, "dataset.json", what)
    )
    mirror = fit(
        content.get("inference_allowed_mirroring_axes"), list[Annotated[int, Between(0, 2)]] | None,  # type: ignore[arg-type]
        f"inference_allowed_mirroring_axes of {what}", error=WeightsError,
    )  # fmt: skip
    plan, card = read_plans(plans, dataset, configuration, mirror, _largest(model), what)
    tensors = _tensors(content["network_weights"], what)
    try:
        with plausible(len(tensors)), torch.device("meta"):
            outline = _build(plan)
        store.fitting(outline, tensors, source=what)  # before memory is taken for it
        network = _build(plan)
    except PixelwiseError:
        raise
    except Exception as error:  # whatever torch meets in sizes that nobody has looked at
        raise WeightsError(f"{what} has a network that cannot be built: {first_line(error)}") from error
    store.load_into(network, tensors, source=what)
    whole: nn.Module = NnUNetSlicewise(network) if plan.dims == 2 else network
    return whole.eval(), card.replace(parameters=sum(p.numel() for p in network.parameters()))


def open_model(model: Model) -> tuple[nn.Module, Card]:
    """The network of a model, of several folds the one that gives their mean, and its card."""
    networks, cards = zip(*(open_fold(model, fold) for fold in model.folds), strict=True)
    if any(card != cards[0] for card in cards[1:]):
        raise WeightsError(
            f"the folds of {model.what} were not trained with the same plans; name one of them"
        )
    if len(networks) == 1:
        return networks[0], cards[0]
    return NnUNetMean(networks).eval(), cards[0].replace(parameters=sum(card.parameters for card in cards))


def _build(plan: Network) -> NnUNet:
    layers = Layers(
        plan.dims, bias=plan.bias, norm=plan.norm, eps=plan.eps, affine=plan.affine, slope=plan.slope,
        nonlin_first=plan.nonlin_first,
    )  # fmt: skip
    sizes = Sizes(
        plan.features, plan.kernels, plan.strides, plan.convs, plan.decoder_convs, layers, plan.stem
    )
    make = residual_encoder_unet if plan.residual else plain_conv_unet
    return make(plan.in_channels, plan.num_classes, sizes)


def _tensors(weights: Mapping[Any, Any], what: str) -> dict[str, Tensor]:
    """Each tensor once, under the name that is shortest."""
    tensors = store.unwrap(weights, what)
    return {name: tensor for name, tensor in tensors.items() if not COPIES.match(name)}


def _json(text: bytes, name: str, what: str) -> Any:
    return read(text, Plain, f"the {name} of {what}", error=WeightsError)


def _largest(model: Model) -> Sequence[Sequence[int]]:
    """What postprocessing.json says of components, group by group."""
    if model.after is None:
        return ()
    what = f"the postprocessing.json of {model.what}"
    said: Any = read(model.after, dict[str, Any], what, error=WeightsError)
    names = fit(said.get("postprocessing_fns"), list[str], what, error=WeightsError)
    given = fit(said.get("postprocessing_kwargs"), list[dict[str, Any]], what, error=WeightsError)
    if len(names) != len(given) or any(name != LARGEST_ONLY for name in names):
        raise WeightsError(f"{what} asks for {', '.join(names)[:200]!r}; {LARGEST_ONLY} is known here")
    groups = []
    for one in given:
        if set(one) - {"labels_or_regions", "background_label"}:
            raise WeightsError(
                f"{what} has {', '.join(map(str, one))[:200]}; labels_or_regions is known here"
            )
        fit(one.get("background_label", 0), Literal[0], what, error=WeightsError)  # type: ignore[arg-type]
        asked = fit(one.get("labels_or_regions"), int | list[int | list[int]], what, error=WeightsError)  # type: ignore[arg-type]
        values = [asked] if isinstance(asked, int) else asked
        groups.append([v for value in values for v in ([value] if isinstance(value, int) else value)])
    return groups


def _warn_of_trainer(name: Any, what: str) -> None:
    if not isinstance(name, str) or not KNOWN_TRAINERS.fullmatch(name):
        warnings.warn(
            f"{what} was trained by {name!r:.80}, which does not come with nnU-Net; if it builds another network than "
            "its plans say, labels are wrong",
            PixelwiseWarning,
            stacklevel=4,
        )
