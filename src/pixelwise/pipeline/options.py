"""How sources are read, and how a run over them goes; how they are segmented is `inference.options`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pixelwise import images
from pixelwise.limits import MAX_RASTER_PIXELS
from pixelwise.pipeline.journal import Journal


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read. max_pixels: refuse larger pictures and frames, and rasters that are wanted whole. bands,
    scale: of rasters, see `sources.raster.open_raster`. allow_remote: what a raster or a video names in other files or
    on the network may be read. max_raster_pixels: refuse larger rasters. max_memory: bytes that reading and joining a
    raster or a volume may take, None for half of what is free; the network's own come on top. slices: of volumes, see
    `Segmenter.slices`. frame, series, assume_orientation: of volumes, see `sources.volume.read_volume`."""

    max_pixels: int = images.MAX_PIXELS
    bands: tuple[int, ...] | None = None
    scale: tuple[float, float] | None = None
    allow_remote: bool = False
    max_raster_pixels: int = MAX_RASTER_PIXELS
    max_memory: int | None = None
    slices: bool = False
    assume_orientation: str | None = None
    frame: int | None = None
    series: str | None = None

    @property
    def as_rasters(self) -> bool:
        """Whether pictures are to be read as rasters, because only those have bands."""
        return self.bands is not None


@dataclass(frozen=True)
class RunOptions:
    """How a run goes. overwrite: replace results that exist. resume: go on with unfinished work. journal: gets a line
    for every source that is finished. progress: called with what is done, as the function that takes these options
    says. note: called with sentences for the user."""

    overwrite: bool = False
    resume: bool = False
    journal: Journal | None = None
    progress: Callable[[float], None] = lambda done: None
    note: Callable[[str], None] = lambda sentence: None


READ_DEFAULTS = ReadOptions()
RUN_DEFAULTS = RunOptions()
