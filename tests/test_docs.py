"""The generated pages are up to date, complete, and lead somewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pixelwise.catalog import CATALOG
from pixelwise.encoders.names import SMP
from pixelwise.selftest import bill, hostile
from pixelwise.selftest.checks import all_checks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODELS = (DOCS / "models.md").read_text(encoding="utf-8")
ENCODERS = (DOCS / "encoders.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
PICTURES = sorted(set(re.findall(r"\((figures/[^)]+\.svg)\)", MODELS)))


def test_the_generated_pages_and_pictures_are_up_to_date():
    built = subprocess.run(
        [sys.executable, str(DOCS / "build.py"), "--check"], capture_output=True, encoding="utf-8"
    )
    assert built.returncode == 0, built.stderr


@pytest.mark.slow
def test_the_page_of_encoders_is_up_to_date():
    pytest.importorskip("timm")
    command = [sys.executable, str(DOCS / "build.py"), "--check", "--encoders"]
    built = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize(
    "encoder",
    "resnet34 vgg16_bn mit_b0 mobilenet_v2 convnext_tiny swin_tiny_patch4_window7_224 levit_128s".split(),
)
def test_rows_of_encoders_are_up_to_date(encoder: str, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("timm")
    monkeypatch.syspath_prepend(DOCS)
    import encoder_table

    assert encoder_table.row(encoder) in ENCODERS.splitlines()


def test_every_encoder_of_smp_and_forty_of_timm_have_one_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(DOCS)
    import encoder_table

    rows = re.findall(r"^\| `([^`]+)` \|", ENCODERS, re.MULTILINE)
    expected = [*SMP, *" ".join(encoder_table.TIMM.values()).split()]
    assert rows == expected
    assert len(set(rows)) == len(rows) >= len(SMP) + 40


def test_every_model_has_one_row():
    rows = re.findall(r"^\| `(\w+)` \|", MODELS, re.MULTILINE)
    assert sorted(rows) == sorted(CATALOG)


def test_every_row_has_as_many_cells_as_the_head():
    for line in MODELS.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 8, line


def test_every_paper_has_a_picture_and_an_arxiv_number():
    _, *sections = MODELS.partition("## Building and loading")[0].split("\n## ")
    assert len(sections) > 10
    for section in sections:
        assert re.search(r"!\[[^]]+\]\(figures/\w+\.svg\)", section), section[:80]
        assert "https://arxiv.org/abs/" in section, section[:80]


@pytest.mark.parametrize("picture", PICTURES)
def test_every_picture_is_well_formed_and_says_in_words_what_it_shows(picture: str):
    tag = "{http://www.w3.org/2000/svg}"
    svg = ElementTree.parse(DOCS / picture).getroot()
    assert svg.tag == f"{tag}svg"
    assert len(svg.findtext(f"{tag}title") or "") > 5
    assert len(svg.findtext(f"{tag}desc") or "") > 50
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for box in svg.iter(f"{tag}rect"):
        x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0, box.attrib
        assert y >= 0, box.attrib
        assert x + w <= width, box.attrib
        assert y + h <= height, box.attrib


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_and_headings_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


SECURITY = (DOCS / "security.md").read_text(encoding="utf-8")
UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6, "pixels": 1, "s": 1, "bytes": 1, "": 1}


def test_the_limits_on_the_page_of_security_are_those_of_the_code():
    rows = re.findall(r"^\| [^|]+ \| ([\d,]+) ?(\w*) \| ([^|]+) \| `([\w.]+)` \|$", SECURITY, re.MULTILINE)
    assert (
        len(rows)
        == SECURITY.partition("## Limits")[2].partition("\n\n|")[2].partition("\n\n")[0].count("\n") - 1
    )
    commands = (DOCS / "cli.md").read_text(encoding="utf-8")
    for number, unit, raised_by, constant in rows:
        module, _, name = constant.rpartition(".")
        value = getattr(importlib.import_module(f"pixelwise.{module}"), name)
        assert int(number.replace(",", "")) * UNITS[unit] == value, constant
        for option in re.findall(r"`(--[\w-]+)`", raised_by):
            assert re.search(rf"^ +(?:-\w, )?{option} ", commands, re.MULTILINE), option


def test_what_the_page_of_security_says_of_the_selftest_is_so():
    groups = ("pictures", "files", "checkpoints", "rasters", "videos")
    count = sum(len(hostile.cases(group, "http://127.0.0.1:9")) for group in groups)
    says = (
        f"{count} files made to break their readers are refused, each within {hostile.MOST_MEGABYTES} MB and "
    )
    assert f"{says}{hostile.MOST_SECONDS} s" in SECURITY
    rows = re.findall(r"^\| ([\w ]+?)(?: \.\.\.)? \|", SECURITY.partition("| check |")[2], re.MULTILINE)[:9]
    for check in all_checks():
        assert any(check.name == row or check.name.startswith(f"{row} ") for row in rows), check.name
    assert all(any(check.name.startswith(row) for check in all_checks()) for row in rows)
    assert f"CycloneDX {bill.SPECIFICATION}" in SECURITY
