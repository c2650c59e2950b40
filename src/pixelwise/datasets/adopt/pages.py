"""Pages of a TIFF, one by one, and the values of label maps with the colours of their palettes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pixelwise.errors import ImageError
from pixelwise.images import DECODERS, MAX_PIXELS, check_file, check_regular, read_values

TIFFS = {".tif", ".tiff"}

MOST_PAGES = 100_000


def count_pages(path: Path) -> int:
    """How many pages of one size a TIFF has; 1 for other files, and where pages differ, as in pyramids. Raises
    ImageError for what cannot be opened."""
    if path.suffix.lower() not in TIFFS:
        return 1
    with _opened(path) as image:
        count = getattr(image, "n_frames", 1)
        if not 1 < count <= MOST_PAGES:
            return 1
        size, mode = image.size, image.mode
        for page in range(1, min(count, 50)):
            image.seek(page)
            if (image.size, image.mode) != (size, mode):
                return 1
    return int(count)


def read_page(path: Path, page: int = 0) -> tuple[NDArray[Any], dict[int, int] | None]:
    """(the values of a label map, (h, w) or (h, w, c), as they are; of a palette the colours of the indices that occur,
    as 24 bits, else None). Raises ImageError for what cannot be read."""
    if path.suffix.lower() == ".npy":
        return read_values(path)[0], None
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and path.suffix.lower() not in TIFFS:
            raise ImageError(f"{path} has {frames} frames, expected one; write the one that is meant as PNG")
        image.seek(page)
        values = np.asarray(image)
        if image.mode != "P":
            return values, None
        palette = np.zeros((256, 3), np.uint32)
        said = np.array(image.getpalette("RGB") or [], np.uint32).reshape(-1, 3)[:256]
        palette[: len(said)] = said
        return values, {
            i: int(palette[i, 0] << 16 | palette[i, 1] << 8 | palette[i, 2]) for i in np.unique(values).tolist()
        }  # fmt: skip


def orientation(path: Path) -> int:
    """The EXIF tag that turns or mirrors a picture, 1 where there is none."""
    if path.suffix.lower() == ".npy":
        return 1
    with _opened(path) as image:
        tag = image.getexif().get(0x0112, 1)
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


def unturned(path: Path) -> Image.Image:
    """A picture as RGB as it lies in its file, whatever its EXIF tag says."""
    with _opened(path) as image:
        return image.convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture in a file, not yet decoded, of a size that is allowed."""
    check_file(path)
    check_regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and odd files; the limit below decides
            with Image.open(path, formats=DECODERS) as image:
                if not 0 < image.width * image.height <= MAX_PIXELS:
                    raise ImageError(
                        f"{path} has {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read"
                    )
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not a picture, or of a kind that Pillow cannot read") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path} has far more pixels than the limit of {MAX_PIXELS:,}") from None
    except MemoryError:
        raise ImageError(f"{path} needs more memory than there is") from None
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise ImageError(f"{path} is damaged or cut short ({str(error).rstrip('.')[:100]})") from error
