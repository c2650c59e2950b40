"""pixelwise.smp.metrics against SMP's own: counts, scores, reductions, arguments, and what SMP cannot compute."""

from __future__ import annotations

import inspect
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixelwise import smp as ours
from pixelwise.metrics import ConfusionMatrix

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)

SCORES = [name for name in ours.metrics.__all__ if name != "get_stats"]
REDUCTIONS = (
    "micro",
    "macro",
    "weighted",
    "micro-imagewise",
    "macro-imagewise",
    "weighted-imagewise",
    "none",
    None,
)


def test_names_and_arguments_are_smps():
    assert set(ours.metrics.__all__) == set(theirs.metrics.__all__)
    for name in ours.metrics.__all__:
        expected, got = (inspect.signature(getattr(side.metrics, name)) for side in (theirs, ours))
        assert [(p.name, p.default, p.kind) for p in got.parameters.values()] == [
            (p.name, p.default, p.kind) for p in expected.parameters.values()
        ], name
        function = getattr(ours.metrics, name)
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__doc__


@st.composite
def masks(draw) -> tuple[Tensor, Tensor, dict]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    mode, k = draw(st.sampled_from(("binary", "multiclass", "multilabel"))), draw(st.integers(2, 4))
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    if mode == "multiclass":
        ignored = draw(st.sampled_from((None, 255, -1)))
        output, target = (torch.randint(0, k, (n, h, w), generator=generator) for _ in range(2))
        if draw(st.booleans()):  # ids of no class
            output[torch.rand(output.shape, generator=generator) < 0.2] = k + 1
        if ignored is not None:
            target[torch.rand(target.shape, generator=generator) < 0.3] = ignored
        integers = [torch.int64, torch.int32] + ([torch.uint8] if ignored != -1 else [])
        output, target = (mask.to(draw(st.sampled_from(integers))) for mask in (output, target))
        return output, target, {"mode": mode, "num_classes": k, "ignore_index": ignored}
    shape = (n, 1 if mode == "binary" else k, h, w)
    target = torch.randint(0, 2, shape, generator=generator)
    target = target.to(draw(st.sampled_from((torch.int64, torch.uint8, torch.bool))))
    if draw(st.booleans()):
        return (
            torch.rand(shape, generator=generator),
            target,
            {"mode": mode, "threshold": draw(st.sampled_from((0.5, 0.2, 0)))},
        )
    return torch.randint(0, 2, shape, generator=generator).to(target.dtype), target, {"mode": mode}


@given(masks())
@settings(max_examples=150, deadline=None)
def test_counts_are_smps(case):
    output, target, options = case
    expected = theirs.metrics.get_stats(output, target, **options)
    got = ours.metrics.get_stats(output, target, **options)
    for mine, other in zip(got, expected, strict=True):
        assert mine.dtype == torch.int64
        assert torch.equal(mine, other.long())


@given(
    st.sampled_from(SCORES),
    st.sampled_from(REDUCTIONS),
    st.sampled_from((1.0, 0, "warn")),
    st.integers(0, 10**6),
)
@settings(max_examples=400, deadline=None)
def test_scores_are_smps_bit_by_bit(name, reduction, zero_division, seed):
    generator = torch.Generator().manual_seed(seed)
    n, k = 1 + seed % 3, 1 + seed % 4
    counts = [torch.randint(0, 2 + seed % 5, (n, k), generator=generator) for _ in range(4)]
    options = {"reduction": reduction, "zero_division": zero_division}
    if seed % 2 or "weighted" in str(reduction):
        options["class_weights"] = [1.0, 2.5, 0.5, 3.0][:k]
    if name == "fbeta_score":
        options["beta"] = (0.5, 2)[seed % 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(theirs.metrics, name)(*counts, **options)
        got = getattr(ours.metrics, name)(*counts, **options)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    known = ~expected.isnan()
    assert torch.equal(got[known], expected[known])
    assert not got.isnan().any()


def test_a_division_by_zero_warns_as_there():
    nothing = [torch.zeros(1, 2, dtype=torch.long)] * 3 + [torch.ones(1, 2, dtype=torch.long)]
    for side in (theirs, ours):
        with pytest.warns(UserWarning, match=r"[Zz]ero"):
            assert side.metrics.iou_score(*nothing, reduction="macro", zero_division="warn") == 0
        assert side.metrics.iou_score(*nothing, reduction="macro") == 1
        assert side.metrics.iou_score(*nothing, reduction="macro", zero_division=0.25) == 0.25


IDS = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
HITS = torch.randint(0, 2, (2, 3, 4, 5), generator=torch.Generator().manual_seed(1))
MISTAKES = {
    "floating target": (
        HITS,
        HITS.float(),
        {"mode": "multilabel"},
        r"integer type, got torch.float32; .*\.long\(\)",
    ),
    "floating output": (
        HITS.float(),
        HITS,
        {"mode": "multilabel"},
        "needs a threshold, such as threshold=0.5",
    ),
    "scores": (IDS.float(), IDS, {"mode": "multiclass", "threshold": 0.5}, r"take output\.argmax\(1\)"),
    "mode": (IDS, IDS, {"mode": "multi"}, "Unknown mode 'multi'"),
    "threshold": (
        IDS,
        IDS,
        {"mode": "multiclass", "threshold": 0.5, "num_classes": 3},
        "threshold is for the modes",
    ),
    "shapes": (HITS[:1], HITS, {"mode": "multilabel"}, r"same shape, got \(1, 3, 4, 5\) and \(2, 3, 4, 5\)"),
    "ignore_index": (HITS, HITS, {"mode": "multilabel", "ignore_index": 255}, "ignore_index is for the mode"),
    "number of classes": (IDS, IDS, {"mode": "multiclass"}, "need num_classes="),
    "inside": (
        IDS,
        IDS,
        {"mode": "multiclass", "num_classes": 3, "ignore_index": 0},
        r"outside of \[0, 3\), got 0",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_smp_refuses_is_refused_in_a_sentence(mistake):
    output, target, options, says = MISTAKES[mistake]
    with pytest.raises(ValueError, match=r"."):
        theirs.metrics.get_stats(output, target, **options)
    with pytest.raises(ValueError, match=says):
        ours.metrics.get_stats(output, target, **options)


def test_weights_and_reductions_that_are_missing_or_unknown_are_refused():
    counts = ours.metrics.get_stats(IDS, IDS, "multiclass", num_classes=3)
    for side in (theirs, ours):
        with pytest.raises(ValueError, match=r"[Cc]lass.weights"):
            side.metrics.recall(*counts, reduction="weighted")
        with pytest.raises(ValueError, match="micro-imagewise"):
            side.metrics.recall(*counts, reduction="micro-image")


def test_where_smp_fails_or_gives_nan_there_is_a_number():
    metrics, nothing = ours.metrics, [torch.zeros(2, 3, dtype=torch.long)] * 4
    assert theirs.metrics.iou_score(*nothing, reduction="micro").isnan()
    assert metrics.iou_score(*nothing, reduction="micro") == 1
    assert metrics.iou_score(*nothing, reduction="micro", zero_division=0) == 0
    empty = [count[:0] for count in nothing]
    assert theirs.metrics.recall(*empty, reduction="micro-imagewise").isnan()
    assert metrics.recall(*empty, reduction="micro-imagewise") == 1
    ones = [torch.ones(1, 2, dtype=torch.long)] * 4
    assert theirs.metrics.recall(*ones, reduction="weighted", class_weights=[0, 0]).isnan()
    assert metrics.recall(*ones, reduction="weighted", class_weights=[0, 0]) == 0
    # a threshold for each class
    output = torch.full((1, 2, 2, 2), 0.5)
    with pytest.raises(TypeError):
        theirs.metrics.get_stats(output, HITS[:1, :2, :2, :2], "multilabel", threshold=[0.4, 0.6])
    tp, fp, *_ = metrics.get_stats(output, HITS[:1, :2, :2, :2], "multilabel", threshold=[0.4, 0.6])
    assert (tp + fp).tolist() == [[4, 0]]
    # every other pixel of a map
    turned = HITS[..., ::2, ::2]
    with pytest.raises(RuntimeError):
        theirs.metrics.get_stats(turned, turned, "multilabel")
    tp, fp, fn, _ = metrics.get_stats(turned, turned, "multilabel")
    assert torch.equal(tp, turned.sum((2, 3)))
    assert not fp.any()
    assert not fn.any()


# What docs/from_smp.md says of SMP's scores beside the recommended ones


def test_smps_macro_iou_is_0_905_with_every_pixel_wrong():
    target, output = torch.zeros(1, 8, 8, dtype=torch.long), torch.ones(1, 8, 8, dtype=torch.long)
    for side in (theirs, ours):
        counts = side.metrics.get_stats(output, target, "multiclass", num_classes=21)
        assert side.metrics.iou_score(*counts, reduction="macro").item() == pytest.approx(0.905, abs=5e-4)
    assert ConfusionMatrix(21).update(output, target).mean_iou() == 0


def test_smps_weighted_scores_of_images_are_divided_by_the_classes_once_more():
    for side in (theirs, ours):
        counts = side.metrics.get_stats(IDS, IDS, "multiclass", num_classes=3)
        for reduction in ("weighted-imagewise", "macro"):
            score = side.metrics.iou_score(*counts, reduction=reduction, class_weights=[1, 1, 1])
            assert score.item() == pytest.approx(1 / 3)  # nothing is wrong


def test_smps_mean_of_images_is_higher_than_the_score_of_all_pixels():
    target = torch.zeros(2, 1, 10, 10, dtype=torch.long)
    target[0] = 1
    output = torch.zeros_like(target)  # half of all pixels, the whole of one picture, are missed
    for side in (theirs, ours):
        counts = side.metrics.get_stats(output, target, "binary")
        assert side.metrics.iou_score(*counts, reduction="micro") == 0
        assert side.metrics.iou_score(*counts, reduction="micro-imagewise") == 0.5


def test_smps_threshold_is_also_that_of_the_target():
    logits, target = torch.full((1, 1, 4, 4), 3.0), torch.zeros(1, 1, 4, 4, dtype=torch.long)
    for side in (theirs, ours):
        counts = side.metrics.get_stats(logits, target, "binary", threshold=0)  # every target is 0 or more
        assert side.metrics.iou_score(*counts, reduction="micro") == 1  # with every pixel wrong
        counts = side.metrics.get_stats(logits.sigmoid(), target, "binary", threshold=0.5)
        assert side.metrics.iou_score(*counts, reduction="micro") == 0


def test_ids_of_one_class_are_counted_where_smp_counts_everything():
    output, target = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 0, 1]]])
    counts = ours.metrics.get_stats(output, target, "multiclass", num_classes=1)
    assert [int(count) for count in counts] == [1, 1, 1, 1]
    assert [
        int(count) for count in theirs.metrics.get_stats(output, target, "multiclass", num_classes=1)
    ] != [1, 1, 1, 1]
