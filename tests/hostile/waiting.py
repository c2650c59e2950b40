"""Cases that fail as yet; a row goes when what it shows is mended."""

WAITING: dict[str, tuple[str, ...]] = {
    "rasters": (
        # GDAL's own warning stands on standard error beside our sentence
        "three billion pixels that are not there",
        "a BigTIFF of 2^62 bytes",
        "bands without end",
        "microscopy: a side without end",
        # 10^10 pixels of no file size, begun instead of refused
        "sparse tiles without end",
    ),
}
