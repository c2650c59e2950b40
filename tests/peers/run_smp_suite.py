"""SMP's own tests against `pixelwise.smp`, beside SMP itself: who passes what.

    SMP_TREE=../segmentation_models.pytorch python tests/peers/run_smp_suite.py tests/models tests/test_losses.py
    SMP_TREE=... python tests/peers/run_smp_suite.py --only ours tests/models/test_unet.py -k script

SMP_TREE is the folder of an unpacked sdist or of the repository; nothing in it is changed. Further arguments are
pytest's; without any, all of its `tests`. Downloads are replaced on both sides: pretrained weights are random, the
preprocessing of an encoder is that of ImageNet, and what asks the Hub fails. Exits with 1 where SMP passes a test
and we do not; a skip counts as a failure unless SMP skips too.

This file is also the plugin of pytest that puts `pixelwise.smp` in the place of `segmentation_models_pytorch`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

THEIRS = "segmentation_models_pytorch"
HERE = Path(__file__).resolve().parent


def outcomes(tree: Path, side: str, arguments: list[str]) -> dict[str, tuple[str, str]]:
    """Test -> (passed, failed or skipped; the first line of why) of one run of pytest in the tree."""
    path = [str(HERE), str(HERE.parents[1] / "src"), str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]
    surroundings = {
        **os.environ, "SMP_SUITE_SIDE": side, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "run_smp_suite", "-p", "no:cacheprovider", "-q"]
        command.append("--continue-on-collection-errors")
        done = subprocess.run(
            [*command, f"--junitxml={report}", *arguments],
            cwd=tree, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if not report.exists() or done.returncode not in (0, 1):
            sys.exit(f"pytest did not run on {side}:\n{done.stdout}")
        found: dict[str, tuple[str, str]] = {}
        # Written by the pytest above, from tests that ran with every right of this process
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            what = [child for child in case if child.tag in ("failure", "error", "skipped")]
            if not what:
                found.setdefault(name, ("passed", ""))
                continue
            result = "skipped" if what[0].tag == "skipped" else "failed"
            if found.get(name, ("passed", ""))[0] != "failed":
                message = what[0].get("message") or what[0].text or ""
                found[name] = result, (message.splitlines() or [""])[0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("ours", "theirs"), help="run one side, without comparing")
    options, arguments = parser.parse_known_args()
    tree = Path(os.environ.get("SMP_TREE", "")).resolve()
    if "SMP_TREE" not in os.environ or not (tree / "tests").is_dir():
        parser.error("SMP_TREE must name an unpacked tree of segmentation_models.pytorch that has tests/")
    arguments = arguments or ["tests"]
    sides = [options.only] if options.only else ["theirs", "ours"]
    results = {side: outcomes(tree, side, arguments) for side in sides}
    for side in sides:
        counts = Counter(result for result, _ in results[side].values())
        print(f"{side:7}" + "".join(f" {counts[kind]:4} {kind}" for kind in ("passed", "failed", "skipped")))
    if options.only:
        worse = {name: why for name, (result, why) in results[options.only].items() if result == "failed"}
    else:
        ours = results["ours"]
        worse = {
            name: ": ".join(ours.get(name, ("missing", "")))
            for name, (result, _) in results["theirs"].items()
            if result == "passed" and ours.get(name, ("missing", ""))[0] != "passed"
        }
        passed = sum(result == "passed" for result, _ in results["theirs"].values())
        print(f"of {passed} that SMP passes, {passed - len(worse)} pass here")
    for name, why in sorted(worse.items()):
        print(f"  {name}  {why}")
    return 1 if worse else 0


# The plugin


def pytest_configure() -> None:
    side = os.environ.get("SMP_SUITE_SIDE")
    if side is not None:
        without_git()
        without_timms_weights()
        {"ours": in_its_place, "theirs": without_its_weights}[side]()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Tests of compiling, exporting and scripting build small encoders of SMP's inner classes to be quick, such as
    `encoders.resnet.ResNetEncoder(block=..., layers=[1, 1, 1, 1])`. We have none of these, and take the whole encoder,
    "resnet18", as SMP's own tests do for its other families."""
    if os.environ.get("SMP_SUITE_SIDE") == "ours":
        for tests in {
            item.cls for item in items if "get_tiny_encoder" in vars(getattr(item, "cls", None) or object)
        }:
            del tests.get_tiny_encoder


def in_its_place() -> None:
    """Every module of pixelwise.smp under SMP's name."""
    from pixelwise import smp
    from pixelwise.encoders import named

    sys.modules[THEIRS] = smp
    for module in pkgutil.walk_packages(smp.__path__, "pixelwise.smp."):
        alias = THEIRS + module.name.removeprefix("pixelwise.smp")
        sys.modules[alias] = importlib.import_module(module.name)

    real: Any = named.smp_encoder
    named.smp_encoder = lambda *args, **kwargs: real(*args, **{**kwargs, "weights": None})


def without_its_weights() -> None:
    """SMP itself, with random weights where it would fetch some, and ImageNet's preprocessing."""
    smp = importlib.import_module(THEIRS)
    real, folder = smp.encoders.get_encoder, tempfile.mkdtemp()
    config = Path(folder) / "config.json"
    config.write_text(json.dumps({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}))

    def get_encoder(name: str, *args: Any, weights: Any = None, **kwargs: Any) -> Any:
        return real(name, *args, weights=weights if name.startswith("tu-") else None, **kwargs)

    for name, module in list(sys.modules.items()):
        if name.startswith(THEIRS) and getattr(module, "get_encoder", None) is real:
            module.get_encoder = get_encoder  # type: ignore[attr-defined]
    smp.encoders.hf_hub_download = lambda *args, **kwargs: config


def without_timms_weights() -> None:
    import timm

    builder: Any = importlib.import_module("timm.models._builder")
    builder.load_pretrained = lambda *args, **kwargs: None
    assert timm.__version__


def without_git() -> None:
    """SMP's tests ask git which files were changed, and run everything where there is no repository."""
    git: Any = types.ModuleType("git")

    def Repo(*_: Any) -> None:
        raise OSError("there is no repository")

    git.Repo = Repo
    sys.modules["git"] = git


if __name__ == "__main__":
    sys.exit(main())
