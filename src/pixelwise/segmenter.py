"""Segmenter, the front door: `Segmenter()("photo.jpg")` is a Segmentation."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise import images, sources
from pixelwise.codes import codes_of, highest
from pixelwise.errors import InputError, OutputError, PixelwiseError, UnknownNameError
from pixelwise.images import ImageLike
from pixelwise.inference.channels import check_channels
from pixelwise.inference.cleanup import Cleanup, clean_bands
from pixelwise.inference.decide import decide
from pixelwise.inference.options import DEFAULTS, TILE_PX, Overlap, SegmentOptions, Tile
from pixelwise.inference.plan import SIDES, Seams, plan, seams
from pixelwise.inference.planes import check_planes, enlarged, log_of, probabilities_of
from pixelwise.inference.preprocess import normalize
from pixelwise.inference.regions import cleaned, decide_regions, refuse_for_regions
from pixelwise.inference.terms import CRF, preset
from pixelwise.inference.tiling import Band, Pending, Predict, Read, Tiling, Window, stitch, whole
from pixelwise.inference.tta import VOLUME_FLIPS, Average, Flip, augmented
from pixelwise.inference.volume_preprocess import VolumePreprocess
from pixelwise.inference.volumes import OVERLAP, Fitting, fitting, segment_volume, working_bytes
from pixelwise.labels import LabelSet
from pixelwise.limits import check_memory
from pixelwise.opening import Said, open_model
from pixelwise.outputs.planes import grid_of, planes_of
from pixelwise.precision import Precision
from pixelwise.segmentation import Segmentation
from pixelwise.sources.volume import Volume, is_volume, read_volume
from pixelwise.terminal import counted, note
from pixelwise.weights.card import Card, Outputs

if TYPE_CHECKING:
    from torch import nn

CRF_TILE_PX = 1024
"""A picture larger than this goes through the CRF in tiles: untiled, twelve megapixels would take nine gigabytes."""


CLEANING_BYTES = 8
"""Of memory that cleaning up a volume takes for each of its voxels, beside its label map, where regions are many."""


class Wanted(NamedTuple):
    """What a Segmentation is to hold beside its labels."""

    confidence: bool = False
    probabilities: bool = False
    logits: bool = False


NOTHING_MORE = Wanted()


class Segmenter:
    """A loaded model with everything it needs from picture to label map.

    model: "everyday" (21 everyday classes, ships in the package), another name of `pixelwise models`, an ONNX file or
    one of OpenVINO's (.xml), weights of ours or of any known family, the folder of a run of `pixelwise train`, of
    Hugging Face or of SMP, "owner/name[@revision]" of the Hugging Face Hub, or a torch network: of ours, or anyone's
    from pictures (n, c, h, w) to logits. A named torch model is fetched, exported once, kept as ONNX in the cache, and
    from then on runs without torch. Of a list of models, such as the folds of a cross-validation, which must agree in
    what they take and mean, the mean of the logits counts.

    A model that takes volumes segments scans: a path, a `Volume`, or an array (d, h, w) or (c, d, h, w), see
    `__call__`.

    card: in place of the model's own, or for one that has none; or some of its words, classes (their names, or a
    LabelSet), outputs, mean, std, size and value_range (see `Card.of`), in place of what the card says about them.
    engine: a key of `engines.ENGINES`; "auto": ONNX Runtime for files and PyTorch for networks; or "fastest": whoever
    wins a race on the first picture, once for a model, size and machine (`engines.racing`). threads: CPU threads, None
    for one a core. device: such as "cuda", or "auto" for a GPU where the engine can use one; None for the CPU.
    precision: what it computes in, "float32", "bfloat16", "float16" or "int8"; None for what the model is, which is
    float32 unless it was made otherwise. export: a network in memory is exported, and run as files are, which is
    faster; as soon as it has changed it is exported again. `segmenter.engine` has the `name` and `precision` that were
    taken.

    Raises InputError, in one sentence with what to do, for what cannot be used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | Sequence[str | os.PathLike[str] | nn.Module] = "everyday",
        *,
        engine: str = "auto",
        card: Card | None = None,
        classes: Sequence[str] | LabelSet | None = None,
        outputs: Outputs | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        value_range: tuple[float, float] | None = None,
        threads: int | None = None,
        device: str | None = None,
        precision: Precision | None = None,
        export: bool = False,
    ) -> None:
        said = Said(card, classes, outputs, mean, std, size, value_range)
        self.engine = open_model(
            model, engine, said, threads=threads, device=device, precision=precision, export=export
        )
        self.card = self.engine.card
        self.classes = self.card.labels

    @overload
    def __call__(
        self,
        image: ImageLike | Volume,
        *,
        confidence: bool = ...,
        probabilities: bool = ...,
        logits: bool = ...,
        max_pixels: int = ...,
        tile: Tile | None = ...,
        overlap: Overlap | None = ...,
        window: Window = ...,
        flips: Sequence[Flip] = ...,
        rotations: Sequence[int] = ...,
        scales: Sequence[float] = ...,
        average: Average = ...,
        crf: CRF | str | None = ...,
        min_confidence: float = ...,
        min_area: int = ...,
        min_mm3: float = ...,
        fill_holes: str | Sequence[str] = ...,
        largest_only: str | Sequence[str] = ...,
    ) -> Segmentation: ...

    @overload
    def __call__(self, image: list[Any] | tuple[Any, ...], **options: Any) -> list[Segmentation]: ...

    def __call__(  # type: ignore[misc]  # a list takes the same keywords
        self,
        image: ImageLike | Volume | list[Any] | tuple[Any, ...],
        *,
        confidence: bool = False,
        probabilities: bool = False,
        logits: bool = False,
        max_pixels: int = images.MAX_PIXELS,
        tile: Tile | None = None,
        overlap: Overlap | None = None,
        window: Window = "gaussian",
        flips: Sequence[Flip] = (),
        rotations: Sequence[int] = (),
        scales: Sequence[float] = (1.0,),
        average: Average = "logits",
        crf: CRF | str | None = None,
        min_confidence: float = 0.0,
        min_area: int = 0,
        min_mm3: float = 0.0,
        fill_holes: str | Sequence[str] = (),
        largest_only: str | Sequence[str] = (),
    ) -> Segmentation | list[Segmentation]:
        """Segment one picture, or each of a list: a path, the bytes of a file, an open file, a PIL image, or an array
        (see `images.read`). A list gives a list; `map` takes any number, one after the other.

        It has as many channels as the card's mean: RGB, grey for 1, for any other number just so many (`sources.read`).

        confidence: also keep how sure the model is of each pixel (see `Segmentation`). probabilities, logits: also keep
        those of every class at every pixel, float32 (k, h, w) at the picture's own size, before any clean-up: the
        network's logits (averaged, blended) in bilinear interpolation, and their softmax; of a binary model one logit
        and two probabilities, of regions a sigmoid each. With the CRF probabilities are its own, logits are refused.
        They take 4 k h w bytes each (21 classes of a 12-megapixel photo: 1 GB), and InputError refuses more than 4 GiB.
        max_pixels: refuse larger pictures.

        A model of volumes takes a scan: its path, a `Volume`, or an array (d, h, w) or (c, d, h, w), which says neither
        spacing nor orientation and goes only where the model needs neither. What comes out lies on the scan's own grid,
        stored as the scan is. It is seen in windows of the card's patch, which overlap by half unless `overlap` says
        otherwise; tile is one number, for another patch.

        The others say how to segment and are the fields of
        `pixelwise.SegmentOptions`, which explains them and which `segment` takes in their place.
        """
        options = SegmentOptions(
            tile, overlap, window, tuple(flips), tuple(rotations), tuple(scales), average, crf,
            min_confidence, min_area, _names(fill_holes), _names(largest_only), min_mm3,
        )  # fmt: skip
        wanted = Wanted(confidence, probabilities, logits)
        if isinstance(image, (list, tuple)):
            return list(self._mapped(image, options, wanted, max_pixels, batch=1, on_error="raise"))
        return self.answer(self._read(image, max_pixels), options, wanted)

    def segment(
        self,
        image: ImageLike | Volume,
        options: SegmentOptions = DEFAULTS,
        *,
        confidence: bool = False,
        probabilities: bool = False,
        logits: bool = False,
        max_pixels: int = images.MAX_PIXELS,
    ) -> Segmentation:
        """Segment one picture as `options` say; otherwise as `__call__`."""
        return self.answer(self._read(image, max_pixels), options, Wanted(confidence, probabilities, logits))

    @overload
    def map(
        self,
        pictures: Iterable[ImageLike],
        options: SegmentOptions = ...,
        *,
        batch: int = ...,
        on_error: Literal["raise"] = ...,
        confidence: bool = ...,
        probabilities: bool = ...,
        logits: bool = ...,
        max_pixels: int = ...,
    ) -> Iterator[Segmentation]: ...

    @overload
    def map(
        self,
        pictures: Iterable[ImageLike],
        options: SegmentOptions = ...,
        *,
        on_error: Literal["return"],
        **more: Any,
    ) -> Iterator[Segmentation | PixelwiseError]: ...

    def map(  # type: ignore[misc]  # the same keywords
        self,
        pictures: Iterable[ImageLike],
        options: SegmentOptions = DEFAULTS,
        *,
        batch: int = 1,
        on_error: Literal["raise", "return"] = "raise",
        confidence: bool = False,
        probabilities: bool = False,
        logits: bool = False,
        max_pixels: int = images.MAX_PIXELS,
    ) -> Iterator[Segmentation | PixelwiseError]:
        """Segment one picture after the other, in their order; none is read before it is its turn.

        batch: so many are read at once, and those of them that have the same size for the network go through it
        together, where they are not cut into tiles. on_error: "return" gives a picture's PixelwiseError in its place
        and goes on, "raise" raises it once those before it are out. The others are as in `segment`.
        """
        if isinstance(pictures, (str, bytes, os.PathLike)):
            raise InputError(
                "map takes several pictures, such as a list of paths; for one call the segmenter itself"
            )
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise InputError(f"batch must be a whole number from 1 up, got {batch!r}")
        if on_error not in ("raise", "return"):
            raise UnknownNameError("on_error", on_error, ("raise", "return"))
        wanted = Wanted(confidence, probabilities, logits)
        return self._mapped(pictures, options, wanted, max_pixels, batch=batch, on_error=on_error)

    def _mapped(
        self, pictures: Iterable[ImageLike], options: SegmentOptions, wanted: Wanted, max_pixels: int, *,
        batch: int, on_error: Literal["raise", "return"],
    ) -> Iterator[Any]:  # fmt: skip
        coming = iter(pictures)
        while some := list(itertools.islice(coming, batch)):
            read = [_tried(self._read, picture, max_pixels) for picture in some]
            coarse = _tried(self._together, read, options) if batch > 1 and options.tile is None else {}
            if isinstance(coarse, PixelwiseError):  # whichever is at fault will say so
                coarse = {}
            for i, values in enumerate(read):
                found = values
                if not isinstance(values, PixelwiseError):
                    found = _tried(self.answer, values, options, wanted, coarse.get(i))
                if isinstance(found, PixelwiseError) and on_error == "raise":
                    raise found
                yield found

    def _together(self, read: Sequence[Any], options: SegmentOptions) -> dict[int, Any]:
        """Coarse logits (1, k, h', w') of those pictures, by their place, that go through the network with others."""
        by_shape: dict[tuple[int, ...], list[tuple[int, Any]]] = {}
        if self.card.baked:  # which takes them one by one
            return {}
        for i, values in enumerate(read):
            if isinstance(values, (PixelwiseError, Volume)):
                continue
            shown = _tried(self.card.preprocess, values)
            if not isinstance(shown, PixelwiseError):  # else `answer` will say so
                by_shape.setdefault(shown.shape, []).append((i, shown))
        found: dict[int, Any] = {}
        for those in by_shape.values():
            if len(those) > 1:
                answers = self._augmented(options)(np.concatenate([shown for _, shown in those]))
                found |= {i: answers[place : place + 1] for place, (i, _) in enumerate(those)}
        return found

    def _read(self, image: ImageLike | Volume, max_pixels: int) -> Any:
        """A picture, or for a model of volumes a Volume."""
        if isinstance(image, Volume):
            return image
        is_path = isinstance(image, (str, os.PathLike))
        if self.card.volume is not None:
            if is_path:
                return read_volume(cast("str", image), channels=len(self.card.volume.channels))
            if isinstance(image, np.ndarray):
                return Volume(image)
            raise InputError(
                f"{self.card.name} takes volumes: a path, a pixelwise.Volume or an array (d, h, w), got "
                f"{type(image).__name__}"
            )
        if is_path and is_volume(Path(cast("str", image))):
            raise InputError(SLICES.format(what=image, name=self.card.name))
        preprocess = self.card.preprocess
        return sources.read(
            image, channels=len(preprocess.mean), max_pixels=max_pixels, value_range=preprocess.value_range
        )

    def answer(
        self,
        values: NDArray[Any] | Volume,
        options: SegmentOptions = DEFAULTS,
        wanted: Wanted = NOTHING_MORE,
        coarse: Any = None,
    ) -> Segmentation:
        """The answer for a picture as `sources.read` gives it; `segment` reads it first.

        coarse: the network's logits for it, (1, k, h', w'), where they are there already.
        """
        if isinstance(values, Volume):
            return self.volume(values, options, wanted)
        self.card.refuse_volumes("a picture")
        cleanup = options.cleanup(self.classes)
        if self._overlapping:
            refuse_for_regions(options, self.classes, streamed=False)
        if self.card.baked:
            return self._from_label_map(values, options, wanted, cleanup)
        planes = wanted.probabilities or wanted.logits
        if planes:
            classes = self.card.channels if self._overlapping else self.classes.num_classes
            check_planes(
                values.shape[:2],
                classes * wanted.probabilities + self.card.channels * wanted.logits,
                options,
                logits=wanted.logits,
            )
        asked = wanted.confidence or options.min_confidence > 0
        if options.tile is None:
            answer = self._augmented(options)(self.card.preprocess(values)) if coarse is None else coarse
            check_channels(answer, self.card.channels, self.classes, self.card.outputs)
            found = self._decided(answer[0], values, options, asked, planes)
        else:
            found = self._tiled(values, options, asked, planes)
        if cleanup.active:
            found = cleaned(found, cleanup, self.card.channels)
        found = self._in_ids(found, options, wanted.confidence)
        shares = None
        if wanted.probabilities:
            assert found.logits is not None
            shares = probabilities_of(found.logits, regions=self._overlapping, keep_logits=wanted.logits)
        return Segmentation(
            found.labels,
            self.classes,
            images.shown(_as_uint8(values)),
            found.confidence,
            codes=found.codes,
            probabilities=shares,
            logits=found.logits if wanted.logits else None,
            **self.made_by(),
        )

    def volume(
        self,
        volume: Volume,
        options: SegmentOptions = DEFAULTS,
        wanted: Wanted = NOTHING_MORE,
        *,
        progress: Callable[[float], None] = lambda share: None,
        max_memory: int | None = None,
    ) -> Segmentation:
        """The answer for a volume, slab by slab. progress: called with the share that is done. max_memory: bytes that
        slabs and label map may take, None for half of what is free.

        Raises InputError for a model of pictures, for options that are not for volumes, for a volume that does not say
        what the model needs to know, and where more memory is needed than there may be.
        """
        card = self.card
        if card.volume is None:
            raise InputError(SLICES.format(what=volume.name, name=card.name))
        _refuse_for_volumes(options)
        cleanup = options.cleanup(
            self.classes, None if volume.geometry is None else volume.geometry.voxel_mm3
        )
        if self._overlapping:
            refuse_for_regions(options, self.classes, streamed=False)
        channels = volume.channels
        if len(channels) != len(card.volume.channels):
            raise InputError(
                f"{card.name} takes volumes of {counted(len(card.volume.channels), 'channel')}, and {volume.name} has "
                f"{len(channels)}"
                + ("; of a series over time give one volume (--frame, frame)" if len(channels) > 1 else "")
            )
        fit = fitting(volume.size, volume.geometry, card.volume, volume.name)
        tiling = self._windows(card.volume, options)
        asked, planes = wanted.confidence or options.min_confidence > 0, wanted.probabilities or wanted.logits
        depth, height, width = volume.size
        if planes:
            many = self.classes.num_classes if not self._overlapping else card.channels
            flat = (depth * height, width)
            check_planes(
                flat, many * wanted.probabilities + card.channels * wanted.logits, options, logits=True
            )
        needed = working_bytes(fit, len(channels), max(2, card.channels), tiling)
        map_bytes = self.classes.dtype.itemsize + 4 * asked + 8 * self._overlapping
        needed += depth * height * width * (map_bytes + cleanup.active * CLEANING_BYTES)
        advice = "crop it, or take a smaller patch (tile, --tile) or more memory (--max-memory-mb)"
        check_memory(f"segmenting {volume.name}", needed, max_memory, advice)
        bands = segment_volume(
            channels, fit, card.volume, self._checked(self._augmented(options)), tiling=tiling,
            align_corners=card.align_corners, confidence=asked, regions=self._overlapping, logits=planes,
            name=volume.name,
        )  # fmt: skip
        if cleanup.active:  # which takes all slices, as indices
            found = cleaned(_gathered(bands, volume.size, fit, progress), cleanup, card.channels)
            found = self._in_ids(found, options, wanted.confidence)
        else:
            in_ids = (self._in_ids(band, options, wanted.confidence) for band in bands)
            found = _gathered(in_ids, volume.size, fit, progress)
        shares = None
        if wanted.probabilities:
            assert found.logits is not None
            flat_logits = found.logits.reshape(len(found.logits), -1, width)
            shares = probabilities_of(flat_logits, regions=self._overlapping, keep_logits=wanted.logits)
            shares = shares.reshape(-1, depth, height, width)
        shown = planes_of(found.labels, self.classes, channels[0], volume.geometry)
        return Segmentation(
            found.labels, self.classes, shown.picture, found.confidence, codes=found.codes, probabilities=shares,
            logits=found.logits if wanted.logits else None, geometry=volume.geometry, planes_at=shown.at,
            slices=grid_of(found.labels, self.classes, channels[0], volume.geometry), origin=volume.origin,
            **self.made_by(),
        )  # fmt: skip

    def slices(
        self,
        volume: Volume | str | os.PathLike[str],
        options: SegmentOptions = DEFAULTS,
        *,
        value_range: tuple[float, float] | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Segmentation:
        """A volume by a model of pictures, slice by slice across the axis of the coarsest spacing (of two alike the
        first), each as a grey picture, as it is stored.

        value_range: (low, high), shown as black and white, the same for all slices; None for the model's own, else from
        the 0.5th to the 99.5th percentile of the volume. What comes out is as of `volume`. Raises InputError for a
        model of volumes, one of other than grey or RGB pictures, and for volumes of several channels.
        """
        volume = volume if isinstance(volume, Volume) else read_volume(volume)
        card = self.card
        if card.volume is not None:
            raise InputError(f"{card.name} takes volumes whole; leave out --slices (slices)")
        count = len(card.preprocess.mean)
        if len(volume.channels) != 1 or count not in (1, 3):
            raise InputError(
                "slices are of volumes of one channel, for models of grey or RGB pictures; "
                f"{volume.name} has {counted(len(volume.channels), 'channel')}, and {card.name} takes {count}"
            )
        values = volume.channels[0]
        shown = value_range or card.preprocess.value_range or images.range_of(values, volume.name)
        axis = 0 if volume.spacing is None else int(np.argmax(np.round(volume.spacing, 4)))
        found: dict[str, NDArray[Any]] = {}
        for i in range(values.shape[axis]):
            grey = images.stretched(np.ascontiguousarray(np.moveaxis(values, axis, 0)[i]), shown)
            picture = np.repeat(grey[..., None], count, axis=2)
            one = self.answer(picture, options)
            for name, plane in (("labels", one.labels), ("codes", one.codes)):
                if plane is not None:
                    if name not in found:
                        found[name] = np.empty(volume.size, plane.dtype)
                    np.moveaxis(found[name], axis, 0)[i] = plane
            progress((i + 1) / values.shape[axis])
        planes = planes_of(found["labels"], self.classes, values, volume.geometry)
        return Segmentation(
            found["labels"], self.classes, planes.picture, codes=found.get("codes"), geometry=volume.geometry,
            planes_at=planes.at, slices=grid_of(found["labels"], self.classes, values, volume.geometry),
            origin=volume.origin, **self.made_by(),
        )  # fmt: skip

    def _windows(self, wanted: VolumePreprocess, options: SegmentOptions) -> Tiling:
        """The windows in which a volume is seen."""
        patch = wanted.patch
        if isinstance(options.tile, int):
            multiple = self.card.preprocess.multiple
            side = multiple * max(1, round(options.tile / multiple))
            patch = (side, side, side)
        overlap = OVERLAP if options.overlap is None else options.overlap
        assert not isinstance(overlap, str)
        return Tiling(patch, overlap, options.window)

    def made_by(self) -> dict[str, Any]:
        """Name and precision of the engine, as they stand in results: {"engine": "onnxruntime", ...}; "" where a
        function was put in its place."""
        engine = self.engine
        return {"engine": getattr(engine, "name", ""), "precision": getattr(engine, "precision", "")}

    def _from_label_map(
        self, values: NDArray[Any], options: SegmentOptions, wanted: Wanted, cleanup: Cleanup
    ) -> Segmentation:
        """The answer of a baked file, which has no logits."""
        self._refuse_for_baked(options, wanted)
        if values.dtype != np.uint8:
            raise InputError(
                f"{self.card.name} is baked for pictures of 8 bits a channel, got {values.dtype}; export the model "
                "without --bake"
            )
        engine: Any = self.engine
        labels, masks = engine.label_map(values)
        codes = None if masks is None else codes_of(masks)
        if cleanup.active:
            indices = self.classes.to_indices(labels).astype(np.min_scalar_type(self.classes.num_classes))
            found = cleaned(Band(0, indices, None, None, codes), cleanup, self.card.channels)
            labels, codes = self.classes.to_ids(found.labels), found.codes
        return Segmentation(labels, self.classes, images.shown(values), codes=codes, **self.made_by())

    def _refuse_for_baked(self, options: SegmentOptions, wanted: Wanted = NOTHING_MORE) -> None:
        asked = {
            "no confidence": wanted.confidence or options.min_confidence > 0,
            "no probabilities": wanted.probabilities,
            "no logits": wanted.logits,
            "no tiles": options.tile is not None,
            "no flips, rotations or scales": options.augments,
            "no CRF": options.crf is not None,
        }
        for what, there in asked.items():
            if there:
                raise InputError(
                    f"{self.card.name} is baked: it takes a whole picture and gives its label map, with {what}; leave "
                    "it out, or export the model without --bake"
                )

    def bands(
        self,
        read: Read,
        size_hw: tuple[int, int],
        options: SegmentOptions = DEFAULTS,
        *,
        confidence: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        through: Callable[[Predict], Predict] | None = None,
        resume: Pending | None = None,
    ) -> Iterator[Band]:
        """Segment what does not fit into memory: rows come in through `read`, finished bands of file ids go out.

        Where regions overlap, bands also have codes; cleaning up is refused then.

        read, resume, and what a Band holds: see `inference.tiling.stitch`. The picture is taken at its own scale.
        prepare: a tile as read (h, w, channels) to the network's float32 (1, channels, h, w); None normalises uint8,
        and float32 in [0, 1], by the card. through: wraps whatever answers for a tile.

        overlap="auto" reads a few rows here and there before it begins. What was "auto" is not decided again on
        resuming. Cleaning up takes two passes, the second over a file in the system's folder for temporary ones: then
        bands come after the last row was read, none of them can be gone on from, and `resume` is refused (InputError).
        """
        self.card.refuse_volumes("what comes in rows")
        cleanup = options.cleanup(self.classes)
        asked = confidence or options.min_confidence > 0
        if self.card.baked:
            self._refuse_for_baked(replace(options, tile=options.tile or "auto"))
        if self._overlapping:
            refuse_for_regions(options, self.classes, streamed=True)
        if cleanup.active and resume is not None:
            raise InputError(
                "cleaning up needs all rows, and these begin in the middle; go on without it, and clean up the whole "
                "(inference.cleanup)"
            )
        found = self._stitched(read, size_hw, options, asked, False, prepare, through, resume)
        if cleanup.active:
            found = _cleaned(found, size_hw, cleanup)
        return (self._in_ids(band, options, confidence) for band in found)

    def seams(
        self,
        image: ImageLike | Read,
        size_hw: tuple[int, int] | None = None,
        options: SegmentOptions = DEFAULTS,
        *,
        max_pixels: int = images.MAX_PIXELS,
        prepare: Callable[[Any], Any] | None = None,
    ) -> Seams:
        """How far neighbouring tiles of a picture agree before they are blended, on a sample of them.

        image: a picture as in `__call__`; or, with size_hw, a function that reads rows, as in `bands`. Of the options
        tile and overlap count; the overlap is up to where to compare, "auto" or None half a tile.
        """
        if self.card.baked:
            self._refuse_for_baked(replace(options, tile=options.tile or "auto"))
        if size_hw is None:
            picture = self._read(cast("ImageLike", image), max_pixels)
            read, size_hw = lambda top, bottom: picture[top:bottom], (picture.shape[0], picture.shape[1])
        else:
            read = cast("Read", image)
        share = 0.5 if options.overlap in (None, "auto") else options.overlap
        return seams(
            read,
            size_hw,
            self._checked(self.engine),
            tiling=self.tiling(size_hw, self.engine, replace(options, overlap=share, window="constant")),
            prepare=prepare or self._normalized,
            align_corners=self.card.align_corners,
            regions=self._overlapping,
        )

    @property
    def _overlapping(self) -> bool:
        """Whether the logits are of regions that overlap."""
        return self.card.outputs == "regions"

    def _checked(self, predict: Predict) -> Predict:
        """The same, whose logits are as many as the card says."""

        def answer(images: Any) -> Any:
            logits = predict(images)
            check_channels(logits, self.card.channels, self.classes, self.card.outputs)
            return logits

        return answer

    def _in_ids(self, found: Band, options: SegmentOptions, confidence: bool) -> Band:
        """Class indices as file ids, and what is doubtful marked; without confidence unless it is wanted."""
        labels = options.mark_doubtful(self.classes.to_ids(found.labels), found.confidence, self.classes)
        codes = found.codes
        if codes is not None and found.confidence is not None and options.min_confidence > 0:
            codes = np.where(found.confidence < options.min_confidence, codes.dtype.type(0), codes)
        return replace(found, labels=labels, codes=codes, confidence=found.confidence if confidence else None)

    def _decided(
        self, logits: Any, picture: NDArray[Any], options: SegmentOptions, confidence: bool, planes: bool
    ) -> Band:
        """Of coarse logits (k, h', w') the class indices, confidence if asked for, codes of regions, and with planes
        the full-size logits."""
        size_hw, aligned = (picture.shape[0], picture.shape[1]), self.card.align_corners
        if options.crf is not None:
            from pixelwise.inference.crf import crf_refine

            out = np.empty((max(2, logits.shape[0]), *size_hw), np.float32) if planes else None
            indices, sure = crf_refine(
                logits,
                _as_uint8(picture),
                preset(options.crf),
                align_corners=aligned,
                tile_px=CRF_TILE_PX,
                out=out,
            )
            return Band(0, indices, sure, None, logits=None if out is None else log_of(out))
        full = enlarged(logits, size_hw, align_corners=aligned) if planes else None
        if self._overlapping:
            codes, least = decide_regions(logits, size_hw, align_corners=aligned, confidence=confidence)
            return Band(0, highest(codes, logits.shape[0]), least, None, codes, full)
        found: Any = decide(logits, size_hw, align_corners=aligned, confidence=confidence)
        labels, probability = (v.cpu().numpy() if is_torch_array(v) else v for v in found)
        return Band(0, labels, probability, None, logits=full)

    def _tiled(self, picture: NDArray[Any], options: SegmentOptions, confidence: bool, planes: bool) -> Band:
        """The same of a picture that is shown in tiles."""
        size_hw = (picture.shape[0], picture.shape[1])
        return whole(
            self._stitched(lambda top, bottom: picture[top:bottom], size_hw, options, confidence, planes),
            size_hw,
        )

    def _stitched(
        self,
        read: Read,
        size_hw: tuple[int, int],
        options: SegmentOptions,
        confidence: bool,
        planes: bool,
        prepare: Callable[[Any], Any] | None = None,
        through: Callable[[Predict], Predict] | None = None,
        resume: Pending | None = None,
    ) -> Iterator[Band]:
        """Bands of class indices, not cleaned up; see `bands`."""
        prepare = prepare or self._normalized
        predict, aligned = self._checked(self._augmented(options)), self.card.align_corners
        if options.crf is not None:
            from pixelwise.inference.crf import refined

            mean, std = self.card.preprocess.mean, self.card.preprocess.std
            predict, aligned = (
                refined(predict, preset(options.crf), mean=mean, std=std, align_corners=aligned),
                False,
            )
        if resume is not None and "auto" in (options.tile, options.overlap):
            tiling = resume.tiling
        else:
            tiling = self.tiling(size_hw, predict, options)
            if options.overlap == "auto":
                half = _half(tiling)
                measured = seams(
                    read, size_hw, predict, tiling=replace(tiling, overlap=half), prepare=prepare,
                    align_corners=aligned, regions=self._overlapping,
                )  # fmt: skip
                tiling = replace(tiling, overlap=min(measured.overlap_px(), *half))
                note(f"{measured}; overlap {tiling.overlap} px")
        return stitch(
            read,
            size_hw,
            predict if through is None else through(predict),
            tiling=tiling,
            prepare=prepare,
            align_corners=aligned,
            confidence=confidence,
            regions=self._overlapping,
            logits=planes,
            resume=resume,
        )

    def _normalized(self, tile: NDArray[Any]) -> NDArray[np.float32]:
        return normalize(tile, self.card.preprocess.mean, self.card.preprocess.std)

    def _augmented(self, options: SegmentOptions) -> Predict:
        if not options.augments:
            return self.engine
        if self.card.volume is None and (wrong := set(options.flips) & VOLUME_FLIPS.keys()):
            raise InputError(
                f"pictures are mirrored 'horizontal' or 'vertical', got {', '.join(sorted(wrong))}, which is of volumes"
            )
        return augmented(
            self.engine,
            flips=options.flips,
            rotations=options.rotations,
            scales=options.scales,
            average=options.average,
            align_corners=self.card.align_corners,
            multiple=self.card.preprocess.multiple,
            offset=self.card.preprocess.offset,
            regions=self._overlapping,
        )

    def tiling(self, size_hw: tuple[int, int], predict: Predict, options: SegmentOptions) -> Tiling:
        """Tiles that this network takes, beginning where its grids of features do: at multiples of its stride, and
        of 32, the deepest stride of most encoders, where the tile is large enough for that."""
        tile = TILE_PX if options.tile is None else options.tile
        overlap = options.share
        fit = replace(self.card.preprocess, size=None).size_hw
        stride = math.lcm(self.card.stride, self.card.preprocess.multiple)
        if tile == "auto":
            sides = tuple(fit(side, side)[0] for side in SIDES)
            tiling = Tiling(sides[0], overlap, options.window, multiple=math.lcm(stride, 32))
            channels = len(self.card.preprocess.mean)
            found = plan(size_hw, predict, tiling=tiling, channels=channels, sides=sides)
            note(found)
            return found.tiling
        sides = fit(*(tile if isinstance(tile, tuple) else (tile, tile)))
        shared = overlap if isinstance(overlap, float) else overlap / min(sides)
        deep = math.lcm(stride, 32)
        multiple = deep if min(sides) * (1 - shared) >= deep else stride
        return Tiling(sides, overlap, options.window, multiple=multiple)

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name!r}, engine={self.engine.name!r}, classes={self.card.labels.num_classes})"


def _cleaned(bands: Iterator[Band], size_hw: tuple[int, int], cleanup: Cleanup) -> Iterator[Band]:
    try:
        folder = TemporaryDirectory(prefix="pixelwise-")
    except OSError as error:
        raise OutputError(f"cannot make a folder for temporary files ({error}); set TMPDIR to one") from error
    with folder as scratch:
        yield from clean_bands(bands, size_hw, cleanup, scratch)


SLICES = (
    "{what} is a volume, and {name} takes pictures; give a model of volumes, or have it segmented slice by slice: "
    "--slices, in Python segmenter.slices(volume)"
)


def _refuse_for_volumes(options: SegmentOptions) -> None:
    """Raise InputError for what is only for pictures."""
    asked = {
        "a tile of one number (tile=64)": options.tile is not None and not isinstance(options.tile, int),
        "an overlap in voxels or a share": options.overlap == "auto",
        f"flips of {', '.join(VOLUME_FLIPS)}": bool(set(options.flips) - VOLUME_FLIPS.keys()),
        "no rotations or scales": replace(options, flips=()).augments,
        "no CRF": options.crf is not None,
    }
    for what, there in asked.items():
        if there:
            raise InputError(f"volumes are segmented with {what}; leave the other out")


def _gathered(
    bands: Iterator[Band], size: tuple[int, int, int], fit: Fitting, progress: Callable[[float], None]
) -> Band:
    """The bands, which come in the network's orientation, as one that is stored as the volume is."""
    found: dict[str, NDArray[Any]] = {}
    for band in bands:
        slices = slice(band.top, band.top + len(band.labels))
        for name in ("labels", "confidence", "codes", "logits"):
            values = getattr(band, name)
            if values is None:
                continue
            if name not in found:
                found[name] = np.empty((*values.shape[: values.ndim - 3], *size), values.dtype)
            fit.turn(found[name])[..., slices, :, :] = values
        progress((band.top + len(band.labels)) / fit.size[0])
    return Band(0, found["labels"], found.get("confidence"), None, found.get("codes"), found.get("logits"))


def _as_uint8(picture: NDArray[Any]) -> NDArray[np.uint8]:
    return picture if picture.dtype == np.uint8 else np.round(picture * 255).astype(np.uint8)


def _tried(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, or the PixelwiseError that it raises."""
    try:
        return function(*arguments)
    except PixelwiseError as error:
        return error


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _half(tiling: Tiling) -> tuple[int, ...]:
    """Half of a tile's sides."""
    sides = tiling.tile if isinstance(tiling.tile, tuple) else (tiling.tile,) * 2
    return tuple(side // 2 for side in sides)
