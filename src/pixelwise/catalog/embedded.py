"""The models that ship in the package; their cards lie inside their files, in pixelwise/assets."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry

ROWS: dict[str, Entry] = {
    "everyday": Entry(
        builder="deeplabv3_mobilenet_v2:deeplabv3_mobilenet_v2",
        asset="everyday.onnx",
        int8="everyday.int8.onnx",
    ),
    "nuclei": Entry(builder="unet:unet_bilinear", asset="nuclei.onnx", arguments={"width": 12}),
}
