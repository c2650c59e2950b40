"""A folder of photographs to label maps and overlays: `pixelwise segment` against a loop, one after the other.

200 JPEGs of 1024 x 683 are cut from scikit-image's photographs. The loop is what one writes in Python: segment a
picture, save its labels, save its overlay. Both are commands of their own with the same files to write, one run each in
turn. --peer SRC adds another checkout of pixelwise, such as an older one, by its folder `src`: the same command there.
Beside the times stand the CPU seconds and the largest memory of each command, and the memory at half as many pictures,
which says whether it grows with them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from timing import alternately, record

LOOP = """
import sys
from pathlib import Path
from pixelwise import Segmenter
segmenter, out = Segmenter(), Path(sys.argv[2])
for path in sorted(Path(sys.argv[1]).iterdir()):
    found = segmenter(path)
    found.save(out / f"{path.stem}.labels.png")
    found.save(out / f"{path.stem}.overlay.png", format="overlay")
"""
SIZE_WH = (1024, 683)


def photographs(folder: Path, count: int) -> None:
    """Parts of real photographs, each another one, as JPEGs of quality 90."""
    rng = np.random.default_rng(0)
    whole = [Image.fromarray(take()) for take in (data.coffee, data.astronaut, data.chelsea, data.rocket)]
    folder.mkdir()
    for i in range(count):
        photo = whole[i % len(whole)]
        width = int(rng.uniform(0.6, 1) * min(photo.width, photo.height * 1.5))
        height = width * SIZE_WH[1] // SIZE_WH[0]
        left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        box = (int(left), int(top), int(left) + width, int(top) + height)
        photo.resize(SIZE_WH, Image.Resampling.LANCZOS, box=box).save(folder / f"{i:03}.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--peer", type=Path, help="the folder `src` of another checkout")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    photos, half, out = folder / "photos", folder / "half", folder / "out"
    photographs(photos, options.pictures)
    photographs(half, options.pictures // 2)
    used: dict[str, list[tuple[float, float]]] = {}

    def command(name: str, source: Path, of: Path | None = None) -> Callable[[], None]:
        module = ["-c", LOOP] if name == "one by one" else ["-m", "pixelwise", "segment"]
        to = [str(out)] if name == "one by one" else ["--out", str(out)]
        env = dict(os.environ) if of is None else {**os.environ, "PYTHONPATH": str(of)}

        def run() -> None:
            shutil.rmtree(out, ignore_errors=True)
            process = subprocess.Popen(
                [sys.executable, *module, str(source), *to], env=env, stdout=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            assert len(list(out.glob("*.png"))) == 2 * len(list(source.iterdir()))
            mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
            used.setdefault(f"{name}, {source.name}", []).append((usage.ru_utime + usage.ru_stime, mib))

        return run

    contenders = {
        "one by one": command("one by one", photos),
        "pixelwise segment": command("pixelwise segment", photos),
    }
    if options.peer is not None:
        contenders["peer"] = command("peer", photos, options.peer)
    times = alternately(contenders, options.repeats, warmup=1)
    command("pixelwise segment", half)()
    facts = {
        "pictures": options.pictures,
        "picture_hw": SIZE_WH[::-1],
        "cpu_s": {name: round(statistics.median(cpu for cpu, _ in runs), 1) for name, runs in used.items()},
        "peak_mib": {name: round(statistics.median(mib for _, mib in runs)) for name, runs in used.items()},
    }
    for peer in contenders.keys() - {"pixelwise segment"}:
        record(
            "folder",
            f"{options.pictures} JPEGs to labels and overlays",
            peer,
            "pixelwise segment",
            times,
            **facts,
        )
    print(facts["cpu_s"], "CPU seconds;", facts["peak_mib"], "MiB")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
