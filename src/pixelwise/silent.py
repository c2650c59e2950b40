"""OpenVINO, without its telemetry.

`import openvino`, and NNCF, report each use to their makers through the package openvino_telemetry unless somebody
opted out of it; without that package they do not. Whoever needs either imports this first, so nothing is ever sent.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # which is how an import is refused

import openvino  # noqa: E402
import openvino.frontend  # noqa: E402

__all__ = ["openvino"]
