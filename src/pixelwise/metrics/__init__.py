"""Metrics: count first, divide once at the end; a miss can never raise a score.

`ConfusionMatrix` counts pixels by true and given class; everything about overlap is read from its counts.
`RegionScores` has one for each of several regions that overlap.
`BoundaryIoU`, `BoundaryF`, `TrimapIoU` and `SurfaceDice` and `SurfaceDistance` look at borders, `StructureScores` at
the structures of volumes, `Calibration` at confidences,
`rand_error`, `warping_error` and `MembraneErrors` at cells and the membranes between them.

All take class numbers as NumPy arrays or torch tensors; importing them imports neither torch nor SciPy.
"""

from pixelwise.metrics.boundary import BoundaryF, BoundaryIoU, SurfaceDice, SurfaceDistance, TrimapIoU
from pixelwise.metrics.calibration import Calibration
from pixelwise.metrics.confusion import ConfusionMatrix, ImageScores, Interval
from pixelwise.metrics.membranes import MembraneErrors, pixel_error, rand_error, warping_error
from pixelwise.metrics.regions import RegionScores
from pixelwise.metrics.structures import StructureScores

__all__ = [
    "BoundaryF",
    "BoundaryIoU",
    "Calibration",
    "ConfusionMatrix",
    "ImageScores",
    "Interval",
    "MembraneErrors",
    "RegionScores",
    "StructureScores",
    "SurfaceDice",
    "SurfaceDistance",
    "TrimapIoU",
    "pixel_error",
    "rand_error",
    "warping_error",
]
