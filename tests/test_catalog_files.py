"""The catalog: one file a paper, found by being there, read without torch and at once."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelwise import Segmenter, catalog
from pixelwise.catalog import CATALOG
from pixelwise.cli.models import run
from pixelwise.errors import DownloadError, InputError

FOLDER = Path(catalog.__file__).parent
PAPERS = sorted(path.stem for path in FOLDER.glob("[!_]*.py") if path.stem not in ("entry", "embedded"))

TORCHVISIONS = {
    "deeplabv3": "segmentation.deeplabv3",
    "fcn_resnet": "segmentation.fcn",
    "lraspp": "segmentation.lraspp",
}
"""File here: the file in models/ whose networks it lists, where that has torchvision's place and name."""


def rows(file):
    return importlib.import_module(f"pixelwise.catalog.{file}").ROWS


def test_the_models_of_the_package_come_first_and_then_the_papers_in_the_alphabet():
    expected = [name for file in ("embedded", *PAPERS) for name in rows(file)]
    assert list(CATALOG) == expected
    assert len(set(expected)) == len(expected)


def test_a_row_stands_in_the_file_of_its_network_under_the_name_that_card_and_builder_have():
    for file in PAPERS:
        module = TORCHVISIONS.get(file, file)
        assert (FOLDER.parent / "models" / f"{module.replace('.', '/')}.py").is_file()
        for name, entry in rows(file).items():
            assert entry.builder == f"{module}:{name}"
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


def listed(capsys) -> dict[str, str]:
    """What `pixelwise models` says of the weights of each row."""
    run("*", json=False)
    rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    column = rows[0].index("weights")
    return {line.split()[0]: line[column:].strip() for line in rows[1:]}


def test_the_list_of_models_says_of_weights_what_segmenter_does(monkeypatch, tmp_path, capsys):
    said = listed(capsys)
    assert list(said) == list(CATALOG)
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    for variable in ("PIXELWISE_CACHE", "PIXELWISE_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    for name, weights in said.items():
        if weights == "in package":
            assert Segmenter(name).card.name == name
            continue
        fetched = weights == "fetched"
        with torch.device("meta"), pytest.raises(DownloadError if fetched else InputError) as caught:
            Segmenter(name)
        entry, message = CATALOG[name], str(caught.value)
        if fetched:
            assert message.startswith(
                f"{entry.card.file} is not on this machine and PIXELWISE_OFFLINE forbids"
            )
        elif weights == "by hand":
            assert entry.files in message
            assert entry.card.origin in message
            assert ("--model FILE" in message) != (f"create_model({name!r}, weights=DICTIONARY)" in message)
        else:
            assert weights == "none"
            assert f"none are published; train it (pixelwise train --model {name})" in message


def test_official_files_that_nobody_fetches_are_not_said_to_be_fetched(capsys):
    said = listed(capsys)
    assert said["everyday"] == "in package"
    assert said["lraspp_mobilenet_v3_large"] == "fetched"
    for name in ("upernet_convnext_tiny", "segformer_b0", "deeplabv2_resnet101", "unet"):
        assert said[name] == "by hand"
    assert said["fcn_convnext_tiny"] == "none"
    assert said["deeplabv3plus_xception41"] == "none"  # what is published is an encoder


def test_the_official_files_are_named_without_what_else_the_notes_say():
    assert CATALOG["deeplabv1_vgg16_4x4"].files.endswith("train_iter_*.caffemodel")
    assert CATALOG["segnet"].files.endswith("segnet_iter_30000_timo (.caffemodel)")
    assert CATALOG["nonewnet"].files.startswith("0_model_best.model .. 4_model_best.model, one per fold")
    assert CATALOG["upernet_convnext_tiny"].files.startswith(
        "https://dl.fbaipublicfiles.com/convnext/ade20k/upernet_"
    )
