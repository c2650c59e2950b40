"""SegFormer B0 to B5 on ADE20K (2105.15203, table 1a)."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, mean_iou, row
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import ADE20K


def _segformer(
    variant: str, *, side: int, parameters: int, multiply_adds: int, as_computed: int, single_scale: float,
    multi_scale: float, cityscapes: float,
) -> Entry:  # fmt: skip
    """side: of the training crop. multiply_adds: of the published network on one crop; as_computed: of ours. The last
    three: mean IoU in percent, two on ADE20K and one on Cityscapes."""
    source, cityscapes_file = "SegFormer paper, table 1a", f"segformer.{variant}.1024x1024.city.160k.pth"
    return row(
        f"segformer:segformer_{variant}", labels=ADE20K, preprocess=Preprocess(size=side, multiple=32), stride=4,
        parameters=parameters, multiply_adds=multiply_adds, multiply_adds_hw=(side, side),
        file=f"segformer.{variant}.{side}x{side}.ade.160k.pth",
        licence="NVIDIA Source Code License for SegFormer (non-commercial)",
        origin="NVlabs/SegFormer, trained on ADE20K",
        scores=(
            mean_iou(single_scale, "ADE20K val", "single scale", source),
            mean_iou(multi_scale, "ADE20K val", "multi-scale and flip", source),
            mean_iou(cityscapes, "Cityscapes val", f"single scale, windows of 1024; {cityscapes_file}", source),
        ),
        notes=(
            "Multiply-adds are the published network's; the head as it is computed here needs "
            f"{as_computed:,} in all.",
            "The official files are on the authors' drives and are not fetched; pass their path as weights.",
            "Their unused decode_head.conv_seg is neither counted nor loaded.",
        ),
    )  # fmt: skip


ROWS: dict[str, Entry] = by_name(
    _segformer("b0", side=512, parameters=3_752_694, multiply_adds=8_387_821_568, as_computed=4_126_408_704,
               single_scale=37.4, multi_scale=38.0, cityscapes=76.2),
    _segformer("b1", side=512, parameters=13_715_798, multiply_adds=15_878_062_080, as_computed=11_650_203_648,
               single_scale=42.2, multi_scale=43.1, cityscapes=78.5),
    _segformer("b2", side=512, parameters=27_461_974, multiply_adds=62_337_843_200, as_computed=24_287_117_312,
               single_scale=46.5, multi_scale=47.5, cityscapes=81.0),
    _segformer("b3", side=512, parameters=47_337_814, multiply_adds=78_963_015_680, as_computed=40_912_289_792,
               single_scale=49.4, multi_scale=50.0, cityscapes=81.7),
    _segformer("b4", side=512, parameters=64_108_374, multiply_adds=95_567_478_784, as_computed=57_516_752_896,
               single_scale=50.3, multi_scale=51.1, cityscapes=82.3),
    _segformer("b5", side=640, parameters=84_708_694, multiply_adds=183_141_171_200, as_computed=123_347_173_376,
               single_scale=51.0, multi_scale=51.8, cityscapes=82.4),
)  # fmt: skip
