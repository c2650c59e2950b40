"""What must not leave the machine, seen from outside of the process."""

from __future__ import annotations

import os
import subprocess
import sys

from drawn import draw_folder


def test_segmenting_a_picture_reports_to_nobody_and_leaves_nothing_at_home(colors_model, tmp_path):
    """ONNX Runtime notes its use there before it sends it."""
    home = tmp_path / "home"
    home.mkdir()
    picture = draw_folder(tmp_path / "data", 1) / "images" / "drawn00.png"
    own = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG_")}
    run = [
        sys.executable,
        "-m",
        "pixelwise",
        "segment",
        str(picture),
        "--model",
        str(colors_model),
        "--out",
        "out",
    ]
    subprocess.run(run, check=True, cwd=tmp_path, env={**own, "HOME": str(home), "TMPDIR": str(home)})
    assert list(home.rglob("*")) == []
