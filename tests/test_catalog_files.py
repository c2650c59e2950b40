"""The catalog: one file a paper, found by being there, read without torch and at once."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pixelwise import Segmenter, catalog
from pixelwise.catalog import CATALOG
from pixelwise.cli.models import _weights
from pixelwise.errors import DownloadError, InputError

FOLDER = Path(catalog.__file__).parent
PAPERS = sorted(path.stem for path in FOLDER.glob("[!_]*.py") if path.stem not in ("entry", "embedded"))


def rows(file):
    return importlib.import_module(f"pixelwise.catalog.{file}").ROWS


def test_the_models_of_the_package_come_first_and_then_the_papers_in_the_alphabet():
    expected = [name for file in ("embedded", *PAPERS) for name in rows(file)]
    assert list(CATALOG) == expected
    assert len(set(expected)) == len(expected)


def test_a_row_stands_in_the_file_of_its_network_under_the_name_that_card_and_builder_have():
    for file in PAPERS:
        assert (FOLDER.parent / "models" / f"{file}.py").is_file()
        for name, entry in rows(file).items():
            assert entry.builder == f"{file}:{name}"
            assert entry.card is not None
            assert (entry.card.name, entry.card.architecture) == (name, name)
            assert type(entry.card).from_json(entry.card.to_json()) == entry.card


def test_a_file_that_is_put_there_is_in_the_catalog(tmp_path):
    file = FOLDER / "lraspp.py"
    (tmp_path / "zzz.py").write_text(file.read_text(encoding="utf-8").replace("lraspp", "zzz"), "utf-8")
    code = (
        "import sys, pixelwise.catalog as c; c.__path__.append(sys.argv[1]); "
        "print(list(c._rows())[-1], 'torch' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["zzz_mobilenet_v3_large", "False"]


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.asset is None])
def test_the_list_of_models_says_of_weights_what_segmenter_does(name, monkeypatch, tmp_path):
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    for variable in ("PIXELWISE_CACHE", "PIXELWISE_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(InputError if _weights(name) != "fetched on first use" else DownloadError):
        Segmenter(name)


def test_official_files_that_nobody_fetches_are_not_said_to_be_fetched():
    assert _weights("everyday") == "in the package"
    assert _weights("lraspp_mobilenet_v3_large") == "fetched on first use"
    for name in ("upernet_convnext_tiny", "segformer_b0", "deeplabv2_resnet101", "unet"):
        assert _weights(name) == "official files, not fetched"
    assert _weights("fcn_convnext_tiny") == "none official"
