"""The tests that SMP ships in its sdist, against pixelwise.smp; fetched from the package index."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

VERSION = "0.6.0"


@pytest.mark.slow
def test_smps_own_tests_pass_with_pixelwise_in_its_place(tmp_path: Path):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    fetched = subprocess.run(
        [*command, f"segmentation-models-pytorch=={VERSION}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip(f"SMP's sdist could not be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    archive = next(tmp_path.glob("*.tar.gz"))
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    tree = tmp_path / archive.name.removesuffix(".tar.gz")
    suite = Path(__file__).with_name("run_smp_suite.py")
    done = subprocess.run(
        [sys.executable, str(suite), "tests"],
        env={**os.environ, "SMP_TREE": str(tree)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 36 that SMP passes, 36 pass here" in done.stdout
