"""The bill of materials: what is installed, under CycloneDX's own schema."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

from pixelwise.catalog.embedded import ROWS
from pixelwise.errors import OutputError
from pixelwise.selftest import bill as bills
from pixelwise.selftest.bill import bill, write_bill


@pytest.fixture(scope="module")
def whole() -> dict:
    return bill()


def test_pixelwise_its_packages_and_theirs_are_there_with_versions_and_licences(whole):
    assert whole["metadata"]["component"]["purl"] == f"pkg:pypi/pixelwise@{metadata.version('pixelwise')}"
    packages = {c["name"].lower(): c for c in whole["components"] if c["type"] == "library"}
    for name in ("numpy", "pillow", "onnxruntime", "llvmlite"):  # llvmlite is what numba asks for
        assert packages[name]["version"] == metadata.version(name)
        assert packages[name]["purl"] == f"pkg:pypi/{name}@{metadata.version(name)}"
    assert all(packages[name].get("licenses") for name in ("numpy", "pillow", "numba"))
    assert "pip" not in packages


def test_models_in_the_package_are_there_with_the_hash_of_their_file(whole):
    models = {c["name"]: c for c in whole["components"] if c["type"] == "machine-learning-model"}
    assert models.keys() == ROWS.keys()
    content = (Path(str(resources.files("pixelwise"))) / "assets" / "nuclei.onnx").read_bytes()
    assert models["nuclei"]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]


def test_every_reference_leads_to_a_component_and_none_is_there_twice(whole):
    references = [c["bom-ref"] for c in (whole["metadata"]["component"], *whole["components"])]
    assert len(set(references)) == len(references)
    asked = {one["ref"]: one["dependsOn"] for one in whole["dependencies"]}
    assert {one for some in asked.values() for one in some} <= set(references)
    assert "model:nuclei" in asked[whole["metadata"]["component"]["bom-ref"]]


def test_the_bill_is_the_same_whenever_the_same_is_installed(whole):
    assert json.dumps(bill()) == json.dumps(whole)


def test_the_bill_is_valid_cyclonedx(tmp_path):
    schema = pytest.importorskip("cyclonedx.schema", reason="has the schema (cyclonedx-python-lib)")
    validation = pytest.importorskip("cyclonedx.validation.json")
    write_bill(tmp_path / "bill.json")
    version = schema.SchemaVersion.from_version(bills.SPECIFICATION)
    text = (tmp_path / "bill.json").read_text(encoding="utf-8")
    assert validation.JsonStrictValidator(version).validate_str(text) is None


def test_the_command_writes_it_and_does_not_replace_it_unasked(tmp_path):
    command = [sys.executable, "-m", "pixelwise", "selftest", "--sbom", "bill.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bill.json: pixelwise, ")
    assert json.loads((tmp_path / "bill.json").read_text())["specVersion"] == bills.SPECIFICATION
    with pytest.raises(OutputError, match="exists already"):
        write_bill(tmp_path / "bill.json")


def test_without_an_installation_there_is_no_bill(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(bills.metadata, "distribution", absent)
    with pytest.raises(OutputError, match=r"pip install \."):
        bill()
