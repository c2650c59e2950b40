"""What every data set yields: a picture or a scan with its truth, not yet read (`Pair`) and read (`Sample`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import unknown_type
from pixelwise.errors import InputError
from pixelwise.geometry import Geometry
from pixelwise.images import ValueRange, read, read_unscaled, read_values

Ids = NDArray[Any]
"""The numbers of a label file, of any integer type."""


@dataclass(frozen=True)
class Sample:
    """One picture or scan with its truth.

    image (h, w, 3) uint8 RGB; mask (h, w) unsigned class ids, 255 where nothing is known (65535 where there are
    more than 255 classes); name, the file's stem. codes: None where a pixel has one class; of regions that overlap the
    codes (h, w) of those that it belongs to (`pixelwise.codes`), and mask is then the label map of their order.

    Of a scan image is (c, d, h, w) in its own numbers and mask (d, h, w), geometry says where they lie, and places
    holds, once it is ready to be cut into patches, voxels (flat numbers) of each class but the first.
    """

    image: NDArray[Any]
    mask: NDArray[np.unsignedinteger[Any]]
    name: str
    codes: NDArray[np.unsignedinteger[Any]] | None = None
    geometry: Geometry | None = None
    places: Mapping[int, NDArray[np.int64]] | None = None


class Samples(Protocol):
    """What a data set is: samples by number, read when asked for. A list of samples is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...


class Coded:
    """Samples of overlapping regions as they are learned: their mask is the codes, and the largest number of its type
    is for pixels of which nothing is known."""

    def __init__(self, samples: Samples, regions: int) -> None:
        self.samples, self.dtype = samples, unknown_type(regions)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if sample.codes is None:
            raise InputError(f"{sample.name} should have the codes of regions that overlap, got a label map")
        return replace(sample, mask=sample.codes.astype(self.dtype))


@dataclass(frozen=True)
class Pair:
    """Where a picture and its truth lie; `name` is what they share, `split` the part of the data set.

    image, mask: the files, None for one that is missing. ids: makes the label map (h, w) of file ids where the
    file is not one itself (outlines in a JSON file, a .mat file, colours); None: it is one. picture: the same for the
    picture; it makes what `images.read` takes. regions: 0, or where classes overlap how many, whose codes `ids` makes.
    volume: they are volumes, which `datasets.volumes` reads; channels: the files of a scan, one a channel, of which
    `image` is the first.
    """

    name: str
    split: str
    image: Path | None
    mask: Path | None
    ids: Callable[[], Ids] | None = None
    picture: Callable[[], Any] | None = None
    regions: int = 0
    volume: bool = False
    channels: tuple[Path, ...] = ()

    @property
    def place(self) -> str:
        """The label map, for messages."""
        return str(self.mask) if self.ids is None else f"{self.mask} ({self.name})"

    def read_image(self, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
        """The picture (h, w, 3), uint8 RGB. value_range: of more than 8 bits a channel, as in `images.read`. Raises
        InputError where there is none, ImageError for what is none."""
        return read(self._source(), value_range=value_range)

    def read_unscaled(self) -> NDArray[Any]:
        """The picture as `images.read_unscaled` gives it: the values in its file where they have more than 8 bits."""
        return read_unscaled(self._source())

    def _source(self) -> Any:
        if self.image is None:
            raise InputError(f"{self.name} ({self.split}) lacks its picture; see `pixelwise check`")
        return self.image if self.picture is None else self.picture()

    def read_ids(self) -> Ids:
        """The label map (h, w) as file ids. Raises InputError, with the file's name, for what is no label map."""
        if self.mask is None:
            raise InputError(f"{self.name} ({self.split}) lacks its label map; see `pixelwise check`")
        try:
            ids = read_label_file(self.mask) if self.ids is None else self.ids()
        except (OSError, SyntaxError, ValueError, LookupError) as error:  # ValueError: InputError as well
            said = str(error)
            raise InputError(said if said.startswith(self.place) else f"{self.place}: {said}") from error
        if ids.ndim != 2:
            raise InputError(f"{self.place} holds colours, not ids; see `pixelwise check`")
        return ids


def read_label_file(path: Path) -> Ids:
    """The values of a picture of ids or of a .npy file, as they are."""
    return read_values(path)[0]
