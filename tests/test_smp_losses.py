"""pixelwise.smp.losses against SMP's own: values, gradients, arguments, and what SMP cannot compute."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pixelwise import losses as recommended
from pixelwise import smp as ours
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.smp.losses import _functional as formulas

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)

NAMES = (
    "DiceLoss", "FocalLoss", "JaccardLoss", "LovaszLoss", "MCCLoss", "SoftBCEWithLogitsLoss", "SoftCrossEntropyLoss",
    "TverskyLoss",
)  # fmt: skip
MODES = ("binary", "multiclass", "multilabel")


def test_names_arguments_and_constants_are_smps():
    assert set(ours.losses.__all__) == set(theirs.losses.__all__)
    for name in NAMES:
        expected, got = (inspect.signature(getattr(side.losses, name)) for side in (theirs, ours))
        assert [(p.name, p.default, p.kind) for p in got.parameters.values()] == [
            (p.name, p.default, p.kind) for p in expected.parameters.values()
        ], name
        forward = inspect.signature(getattr(ours.losses, name).forward)
        assert list(forward.parameters) == ["self", "y_pred", "y_true"]
    for mode in MODES:
        assert (
            getattr(ours.losses, f"{mode.upper()}_MODE")
            == getattr(theirs.losses, f"{mode.upper()}_MODE")
            == mode
        )


@st.composite
def overlaps(draw) -> tuple[str, dict, dict]:
    mode = draw(st.sampled_from(MODES))
    kind = draw(st.sampled_from(("DiceLoss", "JaccardLoss", "TverskyLoss")))
    options = {
        "mode": mode,
        "log_loss": draw(st.booleans()),
        "from_logits": draw(st.booleans()),
        "smooth": draw(st.sampled_from((0.0, 1.0, 0.3))),
        "ignore_index": draw(st.sampled_from((None, 255, -1))),
        "eps": draw(st.sampled_from((1e-7, 0.1))),
    }
    if mode != "binary":
        options["classes"] = draw(st.sampled_from((None, [0], [2, 1])))
        options["class_weights"] = draw(st.sampled_from((None, [1.0, 0.5, 3.0])))
    if kind == "TverskyLoss":
        options |= {"alpha": draw(st.sampled_from((0.3, 0.0))), "beta": draw(st.sampled_from((0.7, 2.0)))}
        options["gamma"] = draw(st.sampled_from((1.0, 2.0, 0.75)))
    return kind, options, {"soft": mode != "multiclass" and draw(st.booleans())}


@st.composite
def focals(draw) -> tuple[str, dict, dict]:
    mode = draw(st.sampled_from(MODES))
    options = {
        "mode": mode,
        "alpha": draw(st.sampled_from((None, 0.25))),
        "gamma": draw(st.sampled_from((2.0, 0.5, 0.0))),
        "ignore_index": None if mode == "multilabel" else draw(st.sampled_from((None, 255))),
        "from_logits": draw(st.booleans()),
        "reduction": draw(st.sampled_from(("mean", "sum", "batchwise_mean", "none"))),
        "normalized": draw(st.booleans()),
        "reduced_threshold": draw(st.sampled_from((None, 0.5))),
    }
    if mode != "binary" and options["reduction"] in ("mean", "sum"):
        options["class_weights"] = draw(st.sampled_from((None, [1.0, 0.5, 3.0])))
    return "FocalLoss", options, {"soft": mode != "multiclass" and draw(st.booleans())}


@st.composite
def lovaszes(draw) -> tuple[str, dict, dict]:
    options = {
        "mode": draw(st.sampled_from(MODES)),
        "per_image": draw(st.booleans()),
        "ignore_index": draw(st.sampled_from((None, 255, 1))),
    }
    return "LovaszLoss", options, {"float32": True}  # SMP's fails in float64


@st.composite
def pixel_losses(draw) -> tuple[str, dict, dict]:
    smooth = draw(st.sampled_from((0.0, 0.1)))
    reduction = draw(st.sampled_from(("mean", "sum", "none")))
    if draw(st.booleans()):
        options = {"ignore_index": draw(st.sampled_from((None, 255, -100)))}
        return "SoftCrossEntropyLoss", {"smooth_factor": smooth, "reduction": reduction, **options}, {}
    options = {
        "smooth_factor": draw(st.sampled_from((None, smooth))),
        "ignore_index": draw(st.sampled_from((None, 255))),
    }
    if draw(st.booleans()):
        options |= {
            "weight": torch.tensor([[[1.0]], [[2.0]], [[0.5]]]),
            "pos_weight": torch.tensor([[[2.0]], [[1]], [[3]]]),
        }
    return "SoftBCEWithLogitsLoss", {"reduction": reduction, **options}, {"mode": "multilabel"}


def inputs_of(options: dict, more: dict, seed: int) -> tuple[Tensor, Tensor]:
    """Logits or probabilities, and a target with ignored pixels and now and then an absent class."""
    generator = torch.Generator().manual_seed(seed)
    mode, n = more.get("mode", options.get("mode", "multiclass")), 1 + seed % 3
    h, w = 3 + seed % 4, 2 + seed % 5
    logits = torch.randn(n, 1 if mode == "binary" else 3, h, w, generator=generator, dtype=torch.float64) * 3
    if mode == "multiclass":
        target = torch.randint(seed % 2, 3 - seed % 3 // 2, (n, h, w), generator=generator)
    elif more.get("soft"):
        target = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    else:
        target = torch.randint(0, 2, logits.shape, generator=generator)
        if mode == "multilabel" and seed % 3 == 0:
            target[:, 1] = 0
        target = target.to(torch.float64) if more.get("mode") or seed % 2 else target
    ignored = options.get("ignore_index")
    if ignored is not None and seed % 4:
        target[torch.rand(target.shape, generator=generator) < 0.3] = ignored
    if not options.get("from_logits", True):
        logits = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    return (logits.float() if more.get("float32") else logits), target


@example(("LovaszLoss", {"mode": "multiclass", "per_image": True, "ignore_index": 1}, {"float32": True}), 205)
@given(st.one_of(overlaps(), overlaps(), focals(), lovaszes(), pixel_losses()), st.integers(0, 10**6))
@settings(max_examples=250, deadline=None)
def test_values_and_gradients_are_smps(case, seed):
    name, options, more = case

    def outcome(side):
        y_pred, y_true = inputs_of(options, more, seed)
        y_pred.requires_grad_()
        loss = getattr(side.losses, name)(**options)(y_pred, y_true)
        assert loss.dtype == y_pred.dtype
        (loss * torch.arange(1, 1 + loss.numel()).reshape(loss.shape)).sum().backward()
        return loss.detach(), y_pred.grad

    got, by_us = outcome(ours)
    try:
        expected, by_them = outcome(theirs)
    except RuntimeError:  # Lovász's stumbles where every pixel of an image is ignored
        assert name == "LovaszLoss"
        assert got.isfinite().all()
        assert by_us.isfinite().all()
        return
    precision = {"rtol": 1e-4, "atol": 1e-5} if more.get("float32") else {"rtol": 1e-9, "atol": 1e-9}
    if expected.numel() and expected.isfinite().all():
        torch.testing.assert_close(got, expected, **precision)
    else:  # nothing counts
        assert got == 0
    if by_them.isfinite().all():
        torch.testing.assert_close(by_us, by_them, **precision)
    assert by_us.isfinite().all()


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_correlation_and_the_softmax_focal_loss_are_smps(seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    t = torch.randint(0, 2, (2, 4, 5), generator=generator)
    both = [side.losses.MCCLoss()(p, t) for side in (theirs, ours)]
    torch.testing.assert_close(both[1], both[0])
    torch.testing.assert_close(*(torch.autograd.grad(loss, p)[0] for loss in both))
    from segmentation_models_pytorch.losses import _functional as functional

    logits = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    options = {"gamma": 1.5, "normalized": bool(seed % 2), "reduction": ("mean", "none")[seed // 2 % 2]}
    options["reduced_threshold"] = (None, 0.4)[seed // 4 % 2]
    pair = [f.softmax_focal_loss_with_logits(logits, t[:, 0, :4], **options) for f in (functional, formulas)]
    torch.testing.assert_close(pair[1], pair[0])


LOGITS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
HITS = (IDS.unsqueeze(1) == torch.arange(3)[:, None, None]).long()
ALL_IGNORED = torch.full_like(IDS, 255)
SURE = torch.full((1, 1, 2, 2), 200.0)
HALF_IGNORED = torch.cat([IDS[:1], ALL_IGNORED[:1]])
SHUT_OUT = torch.cat([torch.full_like(LOGITS[:, :1], -torch.inf), LOGITS[:, 1:]], 1)

BREAKS = {
    "no smoothing of cross-entropy": ("SoftCrossEntropyLoss", {}, LOGITS, IDS),
    "a class that is ruled out": ("SoftCrossEntropyLoss", {"smooth_factor": 0.0}, SHUT_OUT, IDS.clamp(min=1)),
    "ids of uint8": ("DiceLoss", {"mode": "multiclass"}, LOGITS, IDS.to(torch.uint8)),
    "ids of int32": ("JaccardLoss", {"mode": "multiclass"}, LOGITS, IDS.int()),
    "ids of uint8 in cross-entropy": ("SoftCrossEntropyLoss", {"smooth_factor": 0.1}, LOGITS, IDS.to(torch.uint8)),
    "weights of 0": ("DiceLoss", {"mode": "multiclass", "class_weights": [0, 0, 0]}, LOGITS, IDS),
    "a root of nothing": (
        "TverskyLoss", {"mode": "multiclass", "gamma": 0.75, "ignore_index": 255}, LOGITS, ALL_IGNORED
    ),
    "focal without a pixel": ("FocalLoss", {"mode": "multiclass", "ignore_index": 255}, LOGITS, ALL_IGNORED),
    "binary focal without a pixel": (
        "FocalLoss", {"mode": "binary", "ignore_index": 255}, LOGITS[:, :1], ALL_IGNORED
    ),
    "a root of a sure hit": ("FocalLoss", {"mode": "binary", "gamma": 0.5}, SURE, SURE[:, 0] / 200),
    "no gamma": ("FocalLoss", {"mode": "binary", "gamma": None}, LOGITS[:, :1], IDS.clamp(max=1)),
    "ignored labels": ("FocalLoss", {"mode": "multilabel", "ignore_index": 255}, LOGITS, HITS),
    "ids with an axis of classes": ("FocalLoss", {"mode": "multiclass"}, LOGITS, IDS.unsqueeze(1)),
    "weights of an unreduced focal loss": (
        "FocalLoss", {"mode": "multiclass", "reduction": "none", "class_weights": [1, 2]}, LOGITS[:, :2], IDS % 2
    ),
    "Lovász in float64": ("LovaszLoss", {"mode": "binary"}, LOGITS[:, :1].double(), IDS.clamp(max=1)),
    "Lovász of bool": ("LovaszLoss", {"mode": "binary"}, LOGITS[:, :1], IDS.bool()),
    "Lovász in half precision": ("LovaszLoss", {"mode": "multiclass"}, LOGITS.half(), IDS),
    "Lovász without a pixel": ("LovaszLoss", {"mode": "multiclass", "ignore_index": 255}, LOGITS, ALL_IGNORED),
    "Lovász of an image without a pixel": (
        "LovaszLoss", {"mode": "multiclass", "ignore_index": 255, "per_image": True}, LOGITS, HALF_IGNORED
    ),
    "Lovász of one class": ("LovaszLoss", {"mode": "multiclass"}, LOGITS[:, :1], IDS * 0),
    "integer targets of BCE": ("SoftBCEWithLogitsLoss", {}, LOGITS, HITS),
    "BCE without an axis of classes": ("SoftBCEWithLogitsLoss", {}, LOGITS[:, :1], IDS.clamp(max=1).float()),
    "MCC of bool": ("MCCLoss", {}, LOGITS[:, :1].sigmoid(), IDS.bool()),
    "MCC of nothing": ("MCCLoss", {"eps": 0.0}, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)),
    "MCC in half precision": ("MCCLoss", {}, torch.rand(1, 1, 300, 300).half(), torch.ones(1, 1, 300, 300).half()),
    "Dice in half precision": (
        "DiceLoss", {"mode": "binary"}, torch.full((1, 1, 300, 300), 2.0).half(), torch.ones(1, 1, 300, 300)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_where_smp_fails_or_gives_nan_the_loss_and_its_gradient_are_finite(name):
    kind, options, y_pred, y_true = BREAKS[name]

    def outcome(side) -> bool:
        given_ = y_pred.clone().requires_grad_()
        loss = getattr(side.losses, kind)(**options)(given_, y_true)
        loss.backward()
        return bool(loss.isfinite().all() and loss.ndim == 0 and given_.grad.isfinite().all())

    try:
        works_there = outcome(theirs)
    except Exception:
        works_there = False
    assert not works_there, "SMP computes this too; take the case out"
    assert outcome(ours)


def test_what_a_network_gives_is_not_hidden_when_it_is_nan():
    hits = HITS[:, :1].float()
    nothing = torch.full((2, 1, 4, 5), torch.nan)
    for name, options in (
        ("DiceLoss", {"mode": "binary"}), ("TverskyLoss", {"mode": "binary", "gamma": 0.5}), ("MCCLoss", {}),
        ("TverskyLoss", {"mode": "binary", "gamma": 1.5}), ("FocalLoss", {"mode": "binary", "gamma": 0.5}),
        ("LovaszLoss", {"mode": "binary"}), ("SoftBCEWithLogitsLoss", {}), ("SoftCrossEntropyLoss", {}),
    ):  # fmt: skip
        target = IDS * 0 if name == "SoftCrossEntropyLoss" else hits
        assert getattr(ours.losses, name)(**options)(nothing, target).isnan(), name


@pytest.mark.parametrize("mode", MODES)
def test_no_pictures_cost_nothing(mode):
    for name in ("DiceLoss", "FocalLoss", "LovaszLoss"):
        for options in ({}, {"ignore_index": 255}, *([{"per_image": True}] if name == "LovaszLoss" else [])):
            logits = torch.empty(0, 1 if mode == "binary" else 3, 4, 5, requires_grad=True)
            target = torch.empty((0, 3, 4, 5) if mode == "multilabel" else (0, 4, 5), dtype=torch.long)
            loss = getattr(ours.losses, name)(mode, **options)(logits, target)
            loss.backward()
            assert loss.shape == ()
            assert loss == 0


def test_what_smp_cannot_compute_has_the_value_of_the_same_asked_otherwise():
    def of(name: str, *args, **options) -> Tensor:
        return getattr(ours.losses, name)(**options)(*args)

    plain = of("SoftCrossEntropyLoss", LOGITS, IDS)
    torch.testing.assert_close(plain, nn.functional.cross_entropy(LOGITS, IDS))
    torch.testing.assert_close(
        of("DiceLoss", LOGITS, IDS.to(torch.uint8), mode="multiclass"),
        of("DiceLoss", LOGITS, IDS, mode="multiclass"),
    )
    torch.testing.assert_close(
        of("SoftBCEWithLogitsLoss", LOGITS, HITS),
        nn.functional.binary_cross_entropy_with_logits(LOGITS, HITS.float()),
    )
    one = of("LovaszLoss", LOGITS[:1], IDS[:1], mode="multiclass", ignore_index=255)
    half = of(
        "LovaszLoss",
        LOGITS,
        torch.cat([IDS[:1], ALL_IGNORED[:1]]),
        mode="multiclass",
        ignore_index=255,
        per_image=True,
    )
    torch.testing.assert_close(
        half, one / 2
    )  # an image without a pixel counts as 0, as SMP's binary mode has it
    some = HITS.clone()
    some[1] = 255
    torch.testing.assert_close(
        of("FocalLoss", LOGITS, some, mode="multilabel", ignore_index=255),
        of("FocalLoss", LOGITS[:1], HITS[:1], mode="multilabel"),
    )
    twice = of("LovaszLoss", LOGITS[:, :1].double(), IDS.clamp(max=1), mode="binary").float()
    torch.testing.assert_close(twice, of("LovaszLoss", LOGITS[:, :1], IDS.clamp(max=1), mode="binary"))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_the_lovasz_loss_is_the_recommended_one_where_both_average_alike(mode, per_image):
    logits, ids = LOGITS.double(), IDS.clone()
    ids[0, :2] = 255
    over = "image" if per_image else "batch"
    if mode == "binary":
        logits, ids = logits[:, :1], torch.where(ids < 255, ids.clamp(max=1), ids)
        expected = recommended.lovasz_hinge(logits, ids, over=over)
    else:
        expected = recommended.lovasz_softmax(logits, ids, over=over)
    got = ours.losses.LovaszLoss(mode, per_image=per_image, ignore_index=255)(logits, ids)
    torch.testing.assert_close(got, expected)


def test_where_all_pixels_count_and_all_classes_are_there_losses_are_the_recommended_ones():
    logits, binary = LOGITS.double(), LOGITS.double()[:, :1]
    sums = {"over": "batch", "smooth": 1.0}
    for options, args, expected in (
        (
            ("DiceLoss", "multiclass", {"smooth": 1.0}),
            (logits, IDS),
            partial(recommended.dice, over="batch", smooth=2.0),
        ),
        (("JaccardLoss", "multiclass", {"smooth": 1.0}), (logits, IDS), partial(recommended.jaccard, **sums)),
        (
            ("TverskyLoss", "multilabel", {"alpha": 0.2, "beta": 0.7, "smooth": 1.0}),
            (logits, HITS),
            partial(recommended.tversky, alpha=0.2, beta=0.7, mode="multilabel", **sums),
        ),
        (
            ("FocalLoss", "multilabel", {"alpha": 0.3, "gamma": 1.5}),
            (logits, HITS),
            partial(recommended.focal, alpha=0.3, gamma=1.5, mode="multilabel"),
        ),
        (
            ("SoftCrossEntropyLoss", None, {"smooth_factor": 0.2}),
            (logits, IDS),
            partial(recommended.cross_entropy, label_smoothing=0.2),
        ),
        (
            ("SoftBCEWithLogitsLoss", None, {"smooth_factor": 0.1}),
            (logits, HITS),
            partial(recommended.binary_cross_entropy, label_smoothing=0.2, mode="multilabel"),
        ),
        (("MCCLoss", None, {"eps": 0.0}), (binary, HITS[:, :1]), partial(recommended.mcc, mode="binary")),
    ):
        name, mode, more = options
        loss = getattr(ours.losses, name)(*([] if mode is None else [mode]), **more)
        found = []
        for function in (loss, expected):
            x = args[0].clone().requires_grad_()
            value = function(x.sigmoid() if name == "MCCLoss" and function is loss else x, args[1])
            value.backward()
            found.append((value.detach(), x.grad))
        for got, other in zip(*found, strict=True):
            torch.testing.assert_close(got, other, rtol=1e-9, atol=1e-11, msg=name)


def test_classes_are_modules_that_are_copied_saved_moved_and_subclassed():
    for name in NAMES:
        options = (
            {"mode": "multiclass"}
            if "mode" in inspect.signature(getattr(ours.losses, name)).parameters
            else {}
        )
        loss, other = getattr(ours.losses, name)(**options), getattr(theirs.losses, name)(**options)
        assert isinstance(loss, nn.Module)
        assert isinstance(loss, nn.modules.loss._Loss) == isinstance(other, nn.modules.loss._Loss)
        assert loss.state_dict() == other.state_dict() == {}
        shared = {key for key in vars(other) if not key.startswith("_")} - {"focal_loss_fn"}
        assert {key: getattr(loss, key) for key in shared} == {key: getattr(other, key) for key in shared}
        again = pickle.loads(pickle.dumps(copy.deepcopy(loss)))
        args = (
            (LOGITS[:, 0].sigmoid(), HITS[:, 0])
            if name == "MCCLoss"
            else (LOGITS, HITS if "BCE" in name else IDS)
        )
        assert torch.equal(again(*args), loss(y_pred=args[0], y_true=args[1]))
    weighted = ours.losses.SoftBCEWithLogitsLoss(pos_weight=torch.tensor(2.0))
    assert list(weighted.state_dict()) == ["pos_weight"]

    class Squared(ours.losses.DiceLoss):
        def aggregate_loss(self, loss):
            return super().aggregate_loss(loss) ** 2

        def compute_score(self, output, target, smooth=0.0, eps=1e-7, dims=None):
            return formulas.soft_jaccard_score(output, target, smooth, eps, dims)

    plain = ours.losses.JaccardLoss("multiclass")(LOGITS, IDS)
    torch.testing.assert_close(Squared("multiclass")(LOGITS, IDS), plain**2)


SCRIPTED = {"SoftBCEWithLogitsLoss": {"smooth_factor": 0.1}, "MCCLoss": {}}  # what SMP's can as well
TRACED = {
    name: {"mode": "multiclass"}
    for name in ("DiceLoss", "FocalLoss", "JaccardLoss", "TverskyLoss", "LovaszLoss")
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_losses_are_scripted_and_traced_as_smps_are():
    for name, options in {**SCRIPTED, **TRACED, "SoftCrossEntropyLoss": {}}.items():
        loss = getattr(ours.losses, name)(**options)
        args = (LOGITS, HITS.float()) if name in SCRIPTED else (LOGITS, IDS)
        args = (args[0].sigmoid(), args[1]) if name == "MCCLoss" else args
        frozen = [torch.jit.trace(loss, args)]
        if name in SCRIPTED:
            frozen.append(torch.jit.script(loss))
        for written in frozen:
            buffer = io.BytesIO()
            torch.jit.save(written, buffer)
            buffer.seek(0)
            other = (args[0] * 0.5, args[1].flip(0))
            torch.testing.assert_close(torch.jit.load(buffer)(*other), loss(*other))


@pytest.mark.slow
def test_losses_compile_in_one_graph_as_smps_do():
    for name, options in {**SCRIPTED, **TRACED, "SoftCrossEntropyLoss": {}}.items():
        loss = getattr(ours.losses, name)(**options)
        args = (LOGITS.sigmoid(), HITS.float()) if name in SCRIPTED else (LOGITS, IDS)
        compiled = torch.compile(loss, fullgraph=name != "LovaszLoss", backend="eager")
        torch.testing.assert_close(compiled(*args), loss(*args))


def test_mistakes_are_said_in_a_sentence():
    make = ours.losses
    with pytest.raises(UnknownNameError, match=r"Unknown mode 'multi-class'.*multiclass"):
        make.DiceLoss("multi-class")
    for loss in (make.DiceLoss, make.JaccardLoss, make.TverskyLoss, make.FocalLoss):
        with pytest.raises(ValueError, match="class_weights are for the modes multiclass and multilabel"):
            loss("binary", class_weights=[1.0, 2.0])
    with pytest.raises(InputError, match="classes are for the modes"):
        make.JaccardLoss("binary", classes=[0])
    with pytest.raises(InputError, match=r"ids in \[0, 3\), or ignore_index, got others; pass ignore_index="):
        make.DiceLoss("multiclass")(LOGITS, ALL_IGNORED)
    assert make.DiceLoss("multiclass", ignore_index=255)(LOGITS, ALL_IGNORED) == 0
    with pytest.raises(InputError, match="y_pred has 2 images and y_true 1"):
        make.DiceLoss("multiclass")(LOGITS, IDS[:1])
    with pytest.raises(InputError, match="the same shape"):
        make.DiceLoss("binary")(LOGITS[:, :1], IDS[:, :2])


# What docs/from_smp.md says of SMP's losses beside the recommended ones


def test_ignored_pixels_make_smps_cross_entropy_smaller():
    target = IDS.clone()
    target[:, 1:] = 255  # three quarters
    plain = recommended.cross_entropy(LOGITS, target)
    for side in (theirs, ours):
        got = side.losses.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255)(LOGITS, target)
        torch.testing.assert_close(got, plain / 4)


def test_smps_dice_counts_absent_classes_as_perfect():
    logits, ids = torch.zeros(1, 21, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    logits[:, 1] = 50.0  # every pixel wrong, one class there
    for side in (theirs, ours):
        assert side.losses.DiceLoss("multiclass")(logits, ids).item() == pytest.approx(1 / 21)
    assert recommended.dice(logits, ids, smooth=0.0).item() == pytest.approx(1.0)


def test_smps_binary_dice_of_an_empty_mask_costs_nothing_whatever_is_predicted():
    logits, ids = torch.full((1, 1, 8, 8), 50.0, requires_grad=True), torch.zeros(1, 8, 8, dtype=torch.long)
    for side in (theirs, ours):
        loss = side.losses.DiceLoss("binary")(logits, ids)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, logits)[0].abs().max() == 0
    assert recommended.dice(logits, ids, mode="binary").item() == pytest.approx(1.0)


def test_smps_multiclass_focal_loss_sees_sigmoids_where_the_recommended_one_sees_a_softmax():
    logits, ids = torch.tensor([[9.0, 4.0]]).reshape(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
    for side in (theirs, ours):
        loss = partial(side.losses.FocalLoss("multiclass"), y_true=ids)
        assert loss(logits).item() == pytest.approx(1.937, abs=1e-3)
        assert loss(logits - 9).item() != pytest.approx(1.937, abs=1e-3)
    assert recommended.focal(logits, ids).item() < 1e-5
    assert recommended.focal(logits - 9, ids).item() == pytest.approx(recommended.focal(logits, ids).item())


def test_smps_smoothing_of_binary_targets_is_twice_the_usual_one():
    logits, hits = LOGITS.double(), HITS.double()
    for side in (theirs, ours):
        got = side.losses.SoftBCEWithLogitsLoss(smooth_factor=0.1)(logits, hits)
        usual = recommended.binary_cross_entropy(logits, HITS, mode="multilabel", label_smoothing=0.2)
        torch.testing.assert_close(got, usual)


def test_smps_lovasz_of_several_labels_is_that_of_one_picture():
    for side in (theirs, ours):
        got = side.losses.LovaszLoss("multilabel")(LOGITS, HITS)
        torch.testing.assert_close(
            got, recommended.lovasz_hinge(LOGITS.reshape(2, 1, -1), HITS.reshape(2, -1), over="batch")
        )
