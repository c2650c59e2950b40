"""By hand, `make pythons`: is there a wheel of each dependency for the versions of Python that are not at hand?

pip resolves the base installation for each version and system without installing anything; that the sources are of the
lowest version is for `make check` to find (ruff's target-version, mypy's python_version).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    sys.exit("make pythons needs Python 3.11 or newer itself, to read pyproject.toml; set PYTHON")

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SYSTEMS = {
    "Linux": ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64"),
    "macOS": ("macosx_11_0_arm64", "macosx_12_0_arm64", "macosx_13_0_arm64", "macosx_14_0_arm64"),
    "Windows": ("win_amd64",),
}

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
failed = False
with tempfile.TemporaryDirectory() as folder:
    for version in VERSIONS:
        for system, platforms in SYSTEMS.items():
            command = [
                sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed",
                "--only-binary=:all:", "--target", folder, "--python-version", version,
                *(f"--platform={platform}" for platform in platforms), *project["dependencies"],
            ]  # fmt: skip
            tried = subprocess.run(command, capture_output=True, text=True)
            errors = [line for line in tried.stderr.splitlines() if line.startswith("ERROR")]
            failed |= tried.returncode != 0
            print(f"Python {version} on {system}: {'ok' if tried.returncode == 0 else errors}", flush=True)
sys.exit(failed)
