"""What a task may take of this machine: memory and room on disk, looked at before it begins."""

from __future__ import annotations

import contextlib
import glob
import shutil
from pathlib import Path

from pixelwise.errors import ImageError, InputError, OutputError

MAX_RASTER_PIXELS = 10_000_000_000
"""Default limit on the pixels of a raster, 100,000 x 100,000: hours of work."""

MOSTLY_EMPTY = 100
"""Of a raster that is nearly empty so many times fewer pixels are allowed."""

COMPRESSED = 10_000
"""Times that the values of a raster may be larger than its file; deflate reaches 1032."""


def free_memory() -> int:
    """Bytes that nobody uses, within what a container allows; 4 GB where the system does not say it."""
    free = 4_000_000_000
    with contextlib.suppress(OSError, ValueError, IndexError):
        table = Path("/proc/meminfo").read_text()
        free = int(table.split("MemAvailable:")[1].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        free = min(
            free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        )
    return max(free, 0)


def check_memory(task: str, needed: int, allowed: int | None, advice: str) -> None:
    """Raise InputError where a task needs more bytes than are allowed (None: half of those that are free).

    task: the sentence's beginning, such as "reading a.tif"; advice: its end, what to do.
    """
    limit = free_memory() // 2 if allowed is None else allowed
    if needed > limit:
        whose = "half of the free memory" if allowed is None else "the limit"
        raise InputError(
            f"{task} needs about {amount(needed)} of memory, more than {whose}, {amount(limit)}; {advice}"
        )


def check_stored(path: Path, size_hw: tuple[int, int], declared: int, max_pixels: int, advice: str) -> None:
    """Raise ImageError for a raster of many pixels and hardly any bytes: tiles that are not there cost as others do.

    declared: bytes of its values, which it stores compressed or not at all. max_pixels: of rasters; of one that is
    nearly empty a hundredth. advice: ends the sentence.
    """
    h, w = size_hw
    if h * w * MOSTLY_EMPTY <= max_pixels:
        return
    stored = 0
    for file in path.rglob("*") if path.is_dir() else path.parent.glob(f"{glob.escape(path.stem)}.*"):
        stored += file.stat().st_size if file.is_file() else 0
        if stored * COMPRESSED >= declared:
            return
    raise ImageError(
        f"{path} has {h} x {w} = {h * w:,} pixels in {stored:,} bytes, so most of it is not there, and of such a "
        f"raster {max_pixels // MOSTLY_EMPTY:,} pixels are allowed; cut out what is there (gdal_translate -projwin), "
        f"{advice}"
    )


def check_disk(file: Path, needed: int) -> None:
    """Raise OutputError where the disk on which `file` is to be has less than `needed` bytes free."""
    folder = next(place for place in file.absolute().parents if place.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{file} needs about {amount(needed)} on disk while it is made, and {folder} has {amount(free)} free; "
            "choose another --out, or make room"
        )


def amount(count: int) -> str:
    """Bytes for people: 310 kB, 4.2 GB."""
    size = float(min(count, 10**300))
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
