"""What a report says of the machine, and what it leaves out: paths, names of people and machines, the environment."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import pixelwise
from pixelwise.kernels import threads


def about() -> dict[str, Any]:
    """Python, the system, processor, cores and memory (bytes, None where the system does not say)."""
    from llvmlite import binding  # type: ignore[import-untyped]

    try:
        features = sorted(name for name, there in binding.get_host_cpu_features().items() if there)
    except RuntimeError:  # LLVM does not know them everywhere
        features = []
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "c_library": " ".join(platform.libc_ver()).strip(),
        "machine": platform.machine(),
        "processor": binding.get_host_cpu_name(),
        "processor_features": features,
        "cores": os.cpu_count(),
        "cores_allowed": threads(),
        "memory": _memory(),
        "numpy_simd": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "encoding": sys.getfilesystemencoding(),
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has neither
        return None


def requirements() -> dict[str, tuple[str, str | None]]:
    """Each package that pixelwise asks for: the least version ("" for any) and the extra it belongs to, None for the
    base. Empty where pixelwise runs from a folder without being installed."""
    found: dict[str, tuple[str, str | None]] = {}
    try:
        asked = metadata.requires("pixelwise") or []
    except metadata.PackageNotFoundError:
        asked = []
    for line in asked:
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?(?:>=([\w.]+))?", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if match is not None and match[1].lower() != "pixelwise":
            found.setdefault(match[1].lower(), (match[2] or "", extra[1] if extra else None))
    return found


def versions() -> dict[str, str | None]:
    """pixelwise and every package that it asks for: what is installed, None for what is not."""
    found: dict[str, str | None] = {"pixelwise": pixelwise.__version__}
    for name in requirements():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def scrubbed(text: str) -> str:
    """The text without what is private: folders of this machine, values of the environment, names of the user and of
    the machine become words in angle brackets, and of any other absolute path the last part is left."""
    places = {
        str(Path(pixelwise.__file__).parent): "<pixelwise>",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        tempfile.gettempdir(): "<temporary>",
        os.path.expanduser("~"): "<home>",
        os.getcwd(): "<here>",
    }
    for value in os.environ.values():
        for part in {value, *value.split(os.pathsep)}:
            if len(part) >= 5:
                places.setdefault(part, "<environment>")
    places |= {os.path.realpath(place): word for place, word in places.items() if os.path.isabs(place)}
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1:
            text = text.replace(place, places[place])
    for name, word in ((_user(), "<user>"), (platform.node(), "<machine>")):
        if name:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", word, text)
    return re.sub(
        r"(?<![\w>/.:-])(?:[A-Za-z]:[\\/]|/)(?:[^\s'\",;:()<>]*[\\/])+(?=[^\s/\\])", "<path>/", text
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # nobody, or Windows without its variables
        return ""
