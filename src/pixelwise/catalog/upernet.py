"""UPerNet on ConvNeXt, trained on ADE20K: the table of ConvNeXt's repository."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, mean_iou, row
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import ADE20K


def _upernet_convnext(
    size: str, *, training: str, side: int, parameters: int, multiply_adds: int, single_scale: float,
    multi_scale: float, elsewhere: str,
) -> Entry:  # fmt: skip
    """training: the rest of the file's name. side: of the training crop. multiply_adds: at 512x512. single_scale,
    multi_scale: mean IoU in percent. elsewhere: files that others hold of the same network."""
    source = "ConvNeXt repository, table of ADE20K models"
    return row(
        f"upernet:upernet_convnext_{size}", labels=ADE20K, preprocess=Preprocess(size=side), stride=4,
        parameters=parameters, multiply_adds=multiply_adds, multiply_adds_hw=(512, 512),
        base_url="https://dl.fbaipublicfiles.com/convnext/ade20k/", file=f"upernet_convnext_{size}_{training}.pth",
        licence="MIT", origin="facebookresearch/ConvNeXt, trained on ADE20K",
        scores=(
            mean_iou(single_scale, "ADE20K val", "single scale", source),
            mean_iou(multi_scale, "ADE20K val", "multi-scale and flip", source),
        ),
        notes=("Parameters and multiply-adds count the auxiliary head.", elsewhere),
    )  # fmt: skip


ROWS: dict[str, Entry] = by_name(
    _upernet_convnext(
        "tiny", training="1k_512x512", side=512, parameters=60_242_636, multiply_adds=235_581_407_232,
        single_scale=46.0, multi_scale=46.7,
        elsewhere="mmsegmentation: upernet_convnext_tiny_fp16_512x512_160k_ade20k_*-cad485de.pth (SHA-256 prefix); R's "
                  "mirror: convnext_tiny_upernet_512.pth (MD5 6a8321d6e804aaa92a55d8b91b7d6f39)."),
    _upernet_convnext(
        "small", training="1k_512x512", side=512, parameters=81_877_196, multiply_adds=257_671_495_680,
        single_scale=48.7, multi_scale=49.6,
        elsewhere="mmsegmentation: upernet_convnext_small_fp16_512x512_160k_ade20k_*-1b1e394f.pth (SHA-256 prefix); "
                  "R's mirror: convnext_small_upernet_512.pth (MD5 7040ac0cb06a748d25e4d26e7d27eedc)."),
    _upernet_convnext(
        "base", training="1k_512x512", side=512, parameters=122_102_956, multiply_adds=293_603_115_008,
        single_scale=49.1, multi_scale=49.9,
        elsewhere="mmsegmentation: upernet_convnext_base_fp16_512x512_160k_ade20k_*-02a24fc6.pth, 640x640: -9280e39b "
                  "(SHA-256 prefixes); R's mirror: convnext_base_upernet_512.pth "
                  "(MD5 df98aa4c6bca23a3732dae19680eceb9)."),
    _upernet_convnext(
        "large", training="22k_640x640", side=640, parameters=234_994_796, multiply_adds=395_061_362_688,
        single_scale=53.2, multi_scale=53.7,
        elsewhere="mmsegmentation: upernet_convnext_large_fp16_640x640_160k_ade20k_*-e57aa54d.pth (SHA-256 prefix)."),
    _upernet_convnext(
        "xlarge", training="22k_640x640", side=640, parameters=391_140_396, multiply_adds=535_979_622_400,
        single_scale=53.6, multi_scale=54.0,
        elsewhere="mmsegmentation: upernet_convnext_xlarge_fp16_640x640_160k_ade20k_*-95fc38c2.pth (SHA-256 prefix)."),
)  # fmt: skip
