"""Cold start: one photo from a new process, and what importing the package costs.

The peer is the shortest torchvision script that segments one photo with LRASPP and local weights. Files are in
the disk cache for both: each is run once before the clock starts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from skimage import data
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from timing import alternately, record

SCRIPT = """
import sys, torch
from torchvision.io import decode_image
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights, lraspp_mobilenet_v3_large
model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21).eval()
model.load_state_dict(torch.load(sys.argv[2], weights_only=True))
batch = LRASPP_MobileNet_V3_Large_Weights.DEFAULT.transforms()(decode_image(sys.argv[1])).unsqueeze(0)
with torch.inference_mode():
    print(model(batch)["out"].argmax(1).unique())
"""


def import_ms() -> tuple[float, float]:
    """What `import pixelwise` adds to numpy's, and numpy itself, by -X importtime, milliseconds."""
    command = [sys.executable, "-X", "importtime", "-c", "import numpy; import pixelwise"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = {name: int(us) / 1e3 for us, name in re.findall(r"\| +(\d+) \| (numpy|pixelwise)$", lines, re.M)}
    return found["pixelwise"], found["numpy"]


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    photo, weights = folder / "coffee.jpg", folder / "lraspp.pth"
    Image.fromarray(data.coffee()).save(photo, quality=92)
    torch.save(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict(), weights)
    (folder / "script.py").write_text(SCRIPT)
    cold = {
        "torchvision script": [sys.executable, str(folder / "script.py"), str(photo), str(weights)],
        "pixelwise segment": [
            *(sys.executable, "-m", "pixelwise", "segment", str(photo)),
            *("--out", str(folder / "out"), "--overwrite"),
        ],
    }

    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode beside it

    def run(command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True, env=environment)

    times = alternately(
        {name: lambda c=command: run(c) for name, command in cold.items()}, repeats=7, warmup=1
    )
    imports = [import_ms() for _ in range(7)]
    record(
        "startup", "one photo from a cold shell", "torchvision script", "pixelwise segment", times,
        import_pixelwise_ms=sorted(a for a, _ in imports)[3], import_numpy_ms=sorted(b for _, b in imports)[3],
    )  # fmt: skip


if __name__ == "__main__":
    main()
