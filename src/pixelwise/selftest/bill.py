"""A software bill of materials: what is installed of all that pixelwise uses, from the metadata of the packages.

CycloneDX 1.6 as JSON, https://cyclonedx.org/docs/1.6/json. The file is the same whenever the same is installed: it has
no date and no random number.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from email.message import Message
from importlib import metadata, resources
from typing import Any

from pixelwise.catalog.embedded import ROWS
from pixelwise.errors import OutputError
from pixelwise.files import writing
from pixelwise.opening import card_of

SPECIFICATION = "1.6"


def write_bill(path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Write the bill of this environment; a sentence that says what is in it. Raises OutputError."""
    content = bill()
    with writing(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    kinds = [component["type"] for component in content["components"]]
    return f"{path}: pixelwise, {kinds.count('library')} packages and {kinds.count('machine-learning-model')} models"


def bill() -> dict[str, Any]:
    """Of pixelwise, the packages that it asks for and those that these ask for, as far as they are installed, and the
    models inside of pixelwise. Raises OutputError where pixelwise runs from a folder without being installed."""
    found: dict[str, tuple[metadata.Distribution, set[str]]] = {}
    todo = ["pixelwise"]
    while todo:
        name = todo.pop()
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        lines = [line for line in package.requires or [] if name == "pixelwise" or "extra ==" not in line]
        asked = {_normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}
        found[name] = (package, asked - {name})
        todo += [other for other in asked if other not in found]
    if "pixelwise" not in found:
        raise OutputError(
            "pixelwise runs from a folder and is not installed, so there is no metadata to make a bill of; run: pip "
            "install . in that folder"
        )
    models = [_model(name) for name in ROWS]
    own, *packages = (_package(found[name][0]) for name in ("pixelwise", *sorted(set(found) - {"pixelwise"})))
    own["type"] = "application"
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {"component": own},
        "components": [*packages, *models],
        "dependencies": [
            {
                "ref": _address(package),
                "dependsOn": [
                    *(_address(found[other][0]) for other in sorted(asked) if other in found),
                    *(model["bom-ref"] for model in models if name == "pixelwise"),
                ],
            }
            for name, (package, asked) in sorted(found.items())
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {**content, "serialNumber": f"urn:uuid:{number}"}


def _normal(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _address(package: metadata.Distribution) -> str:
    """A package URL."""
    return f"pkg:pypi/{_normal(package.metadata['Name'])}@{package.version}"


def _package(package: metadata.Distribution) -> dict[str, Any]:
    about: Message = package.metadata  # type: ignore[assignment]
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _address(package),
        "name": about["Name"],
        "version": package.version,
        "purl": _address(package),
    }
    if about["Summary"]:
        component["description"] = about["Summary"]
    if licence := about["License-Expression"]:
        component["licenses"] = [{"expression": licence}]
    elif named := [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if "License ::" in line
    ]:
        component["licenses"] = [{"license": {"name": name}} for name in named]
    elif (licence := (about["License"] or "").strip()) and "\n" not in licence:
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _model(name: str) -> dict[str, Any]:
    """A model that ships in the package, with the hash of its file."""
    from pixelwise.weights.store import digest

    asset = ROWS[name].asset
    with resources.as_file(resources.files("pixelwise") / "assets" / str(asset)) as path:
        sha256 = digest(path)
    card = card_of(name)
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{name}",
        "name": name,
        "description": f"{card.architecture}, {card.labels.num_classes} classes",
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "licenses": [{"license": {"name": card.licence}}],
    }
