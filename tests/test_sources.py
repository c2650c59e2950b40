"""Rasters of every kind read alike, a few rows at a time, and labels keep their place on Earth."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise import SegmentOptions, images, sources
from pixelwise.errors import ImageError, InputError, OutputError
from pixelwise.georeference import Georeference
from pixelwise.inference.cleanup import Cleanup
from pixelwise.inference.tiling import Tiling
from pixelwise.pipeline.journal import JOURNAL, Journal
from pixelwise.pipeline.options import ReadOptions, RunOptions
from pixelwise.pipeline.raster import segment_raster
from pixelwise.segmenter import Segmenter
from pixelwise.sources import gdal
from pixelwise.sources.raster import open_raster
from test_cleanup import plain
from tiny import quadrant_labels, quadrants

rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
tifffile = pytest.importorskip("tifffile", reason="OME-TIFF needs tifffile (pixelwise[raster])")
zarr = pytest.importorskip("zarr", reason="Zarr needs zarr (pixelwise[raster])")

UTM = Georeference("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_600_000.0))


def write_tiff(
    path: Path, values: np.ndarray, *, place: Georeference | None = UTM, **profile: object
) -> Path:
    """values (h, w) or (h, w, bands)."""
    values = values[..., None] if values.ndim == 2 else values
    h, w, count = values.shape
    if place is not None:
        profile |= {"crs": place.crs, "transform": rasterio.Affine(*place.transform)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", height=h, width=w, count=count, dtype=values.dtype.name, **profile
        ) as file:
            file.write(values.transpose(2, 0, 1))
    return path


def land(h: int = 200, w: int = 170) -> np.ndarray:
    """Patches of strong colours and dark, uint8 (h, w, 3), none of them on the grid of the tiles."""
    rng = np.random.default_rng(3)
    image = np.zeros((h, w, 3), np.uint8)
    for _ in range(60):
        y, x = rng.integers(0, h), rng.integers(0, w)
        image[y : y + 2 * rng.integers(4, 30), x : x + 2 * rng.integers(4, 30)] = np.eye(3, dtype=np.uint8)[
            rng.integers(3)
        ] * rng.integers(0, 256)
    return image


def whole(path: Path, **options: object) -> np.ndarray:
    raster = open_raster(path, **options)
    rows, _ = raster.read(0, raster.size_hw[0])
    raster.close()
    return rows


def test_find_tells_pictures_rasters_videos_and_standard_input_apart(tmp_path):
    write_tiff(tmp_path / "map.tif", land(8, 8))
    Image.fromarray(quadrants()).save(tmp_path / "photo.tif")
    Image.fromarray(quadrants()).save(tmp_path / "photo.png")
    zarr.create_array(str(tmp_path / "cube.zarr"), data=land(8, 8))
    (tmp_path / "film.MP4").write_bytes(b"x")
    inputs = [tmp_path, tmp_path / "cube.zarr", tmp_path / "film.MP4", "-", "camera:0"]
    kinds = {source.path.name: source.kind for source in sources.find(inputs)}
    assert kinds == {
        "map.tif": "raster", "photo.png": "picture", "photo.tif": "picture", "cube.zarr": "raster",
        "film.MP4": "video", "-": "picture", "camera:0": "video",
    }  # fmt: skip


@pytest.mark.parametrize("big", ["YES", "NO"])
def test_a_geotiff_is_a_raster_big_or_small_and_so_is_what_pictures_cannot_hold(big, tmp_path):
    assert sources.kind_of(write_tiff(tmp_path / "a.tif", land(8, 8), bigtiff=big)) == "raster"
    plain = write_tiff(tmp_path / "plain.tif", land(8, 8), place=None)
    assert sources.kind_of(plain) == "picture"
    assert sources.kind_of(plain, max_pixels=63) == "raster"
    five = write_tiff(tmp_path / "five.tif", np.zeros((8, 8, 5), np.uint8), place=None)
    assert sources.kind_of(five) == "raster"
    turned = rasterio.Affine(2, 1, 5, 1, -2, 7)
    for told in ({"nodata": 7}, {"transform": turned}, {"transform": rasterio.Affine(2, 0, 5, 0, -2, 7)}):
        assert sources.kind_of(write_tiff(tmp_path / "b.tif", land(8, 8), place=None, **told)) == "raster"
    for order in "<>":
        tifffile.imwrite(
            tmp_path / "order.tif", land(8, 8), byteorder=order, photometric="rgb", metadata=None
        )
        assert sources.kind_of(tmp_path / "order.tif") == "picture"
    (tmp_path / "cut.tif").write_bytes(plain.read_bytes()[:6])
    assert sources.kind_of(tmp_path / "cut.tif") == "picture"


def test_torch_tensors_and_npy_files_are_pictures(tmp_path):
    picture = quadrants()
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)
    for tensor in (
        channels_first,
        channels_first / 255,
        (channels_first / 255).double(),
        torch.from_numpy(picture),
    ):
        np.testing.assert_array_equal(images.read(tensor), picture)
    np.testing.assert_array_equal(images.read(channels_first[0])[..., 1], picture[..., 0])
    half = (channels_first // 255).to(torch.bfloat16)
    np.testing.assert_array_equal(images.read(half), picture)
    np.save(tmp_path / "picture.npy", picture)
    np.testing.assert_array_equal(images.read(tmp_path / "picture.npy"), picture)
    np.testing.assert_array_equal(images.read((tmp_path / "picture.npy").read_bytes()), picture)
    with pytest.raises(ImageError, match="one picture at a time"):
        images.read(channels_first[None])
    with pytest.raises(ImageError, match=r"picture\.npy has .*limit of 100"):
        images.read(tmp_path / "picture.npy", max_pixels=100)


def write_kind(kind: str, folder: Path, values: np.ndarray) -> Path:
    if kind == "geotiff":
        return write_tiff(folder / "a.tif", values, tiled=True, blockxsize=64, blockysize=64)
    if kind == "bigtiff":
        return write_tiff(folder / "a.tif", values, bigtiff="YES", compress="lzw")
    path = folder / ("a.ome.tif" if kind.startswith("ome ") else "a.zarr")
    if kind == "ome cyx":
        tifffile.imwrite(path, values.transpose(2, 0, 1), metadata={"axes": "CYX"}, photometric="minisblack")
    elif kind == "ome yxs":
        tifffile.imwrite(path, values, metadata={"axes": "YXS"}, photometric="rgb", tile=(64, 64))
    elif kind == "zarr yxc":
        zarr.create_array(str(path), data=values, chunks=(50, 60, 3))
    elif kind == "zarr cyx":
        zarr.create_array(str(path), data=np.ascontiguousarray(values.transpose(2, 0, 1)), chunks=(1, 64, 64))
    else:
        group = zarr.open_group(str(path), mode="w")
        group.create_array("0", data=np.ascontiguousarray(values.transpose(2, 0, 1)[None, :, None]))
        axes = [{"name": name} for name in "tczyx"]
        group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    return path


KINDS = ["geotiff", "bigtiff", "ome cyx", "ome yxs", "zarr yxc", "zarr cyx", "ome-zarr"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(kind, tmp_path):
    values = land()
    path = write_kind(kind, tmp_path, values)
    assert sources.find([path])[0].kind == "raster"
    raster = open_raster(path)
    assert raster.size_hw == (200, 170)
    for top, bottom in ((0, 7), (7, 130), (199, 200)):
        rows, valid = raster.read(top, bottom)
        np.testing.assert_array_equal(rows, values[top:bottom])
        assert valid is None
    raster.close()
    np.testing.assert_array_equal(whole(path, bands=(3, 1, 1)), values[..., [2, 0, 0]])


def test_one_band_is_repeated_and_two_need_a_choice(tmp_path):
    values = land()[..., 0]
    np.testing.assert_array_equal(whole(write_tiff(tmp_path / "one.tif", values)), np.dstack([values] * 3))
    two = write_tiff(tmp_path / "two.tif", land()[..., :2])
    with pytest.raises(InputError, match="--bands, such as 1,2,2"):
        open_raster(two)
    for bands in ((1, 2), (0, 1, 2), (1, 2, 3)):
        with pytest.raises(InputError, match="counted from 1"):
            open_raster(two, bands=bands)


def test_more_bands_than_the_network_takes_are_left_out_and_said(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (9, 8, 6), np.uint8)
    raster = open_raster(write_tiff(tmp_path / "six.tif", values), channels=4)
    assert raster.bands == (1, 2, 3, 4)
    assert any("bands 1, 2, 3, 4 of 6" in note for note in raster.notes)
    np.testing.assert_array_equal(raster.read(0, 9)[0], values[..., :4])
    raster.close()


def test_an_alpha_band_says_where_data_is_and_is_no_colour(tmp_path):
    values = np.dstack([land(20, 30), np.full((20, 30), 255, np.uint8)])
    values[:5, :, 3] = 0
    raster = open_raster(write_tiff(tmp_path / "rgba.tif", values, photometric="rgb", alpha="yes"))
    rows, valid = raster.read(3, 8)
    np.testing.assert_array_equal(rows, values[3:8, :, :3])
    np.testing.assert_array_equal(valid.any(axis=1), [False, False, True, True, True])
    raster.close()


def test_a_palette_becomes_its_colours(tmp_path):
    path = write_tiff(tmp_path / "classes.tif", np.arange(12, dtype=np.uint8).reshape(3, 4) % 2)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (9, 8, 7, 255), 1: (200, 100, 50, 255)})
    rows = whole(path)
    assert rows[0, :2].tolist() == [[9, 8, 7], [200, 100, 50]]


def test_sixteen_bits_are_stretched_between_percentiles_and_said(tmp_path):
    values = np.random.default_rng(1).integers(200, 3001, (120, 100, 3)).astype(np.uint16)
    values[0, 0] = 65535
    path = write_tiff(tmp_path / "satellite.tif", values)
    raster = open_raster(path)
    low, high = np.percentile(values, (2, 98))
    assert (raster.low, raster.high) == pytest.approx((low, high))
    assert f"values {low:g} to {high:g} (2nd to 98th percentile)" in raster.notes[0]
    rows, _ = raster.read(10, 20)
    raster.close()
    np.testing.assert_allclose(rows, np.clip((values[10:20] - low) / (high - low), 0, 1), atol=1e-6)
    named = open_raster(path, scale=(0, 3000))
    np.testing.assert_allclose(named.read(10, 20)[0], np.clip(values[10:20] / 3000, 0, 1), atol=1e-6)
    assert named.notes == ()
    named.close()
    with pytest.raises(InputError, match="smaller first"):
        open_raster(path, scale=(5, 5))


def test_missing_values_do_not_count_in_the_range_and_are_marked(tmp_path):
    values = np.random.default_rng(1).uniform(10, 20, (60, 50)).astype(np.float32)
    values[:6] = -9999
    values[6, 7] = np.nan
    raster = open_raster(write_tiff(tmp_path / "float.tif", values, nodata=-9999))
    assert 10 < raster.low < 11
    assert 19 < raster.high < 20
    rows, valid = raster.read(0, 60)
    raster.close()
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(valid, (values > 0) & np.isfinite(values))
    empty = write_tiff(tmp_path / "empty.tif", np.full((5, 5), -9999, np.float32), nodata=-9999)
    with pytest.raises(ImageError, match="holds no data"):
        open_raster(empty)


@pytest.mark.parametrize("suffix", [".bil", ".img", ".asc"])
def test_a_kind_that_is_known_by_its_suffix_is_opened_as_that_and_no_other(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"P5 4 4 255\n" + bytes(16))  # some other kind, as are those that name addresses
    with pytest.raises(ImageError, match=f"a{suffix} is not a raster that GDAL can read"):
        open_raster(path)


def test_a_file_of_any_other_folder_is_not_read_with_a_raster(tmp_path):
    (tmp_path / "maps").mkdir()
    path = write_tiff(tmp_path / "maps" / "a.tif", land(8, 8))
    for other, refused in (
        ("a.tif.aux.xml", False),
        ("below/b", True),
        ("../b", True),
        ("../maps_2/b", True),
    ):
        dataset = SimpleNamespace(
            tags=lambda ns: {}, tag_namespaces=list, files=[str(path), str(path.parent / other)]
        )
        with pytest.raises(ImageError, match=r"a\.tif has .*b read, which") if refused else nullcontext():
            gdal._refuse_others(dataset, path)


def test_what_is_no_raster_gets_a_sentence(tmp_path):
    (tmp_path / "text.vrt").write_text("hello")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "text.ome.tif").write_text("hello")
    time_series = tmp_path / "film.zarr"
    group = zarr.open_group(str(time_series), mode="w")
    group.create_array("0", data=np.zeros((4, 3, 8, 9), np.uint8))
    axes = [{"name": name} for name in "tcyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    whole = write_tiff(tmp_path / "whole.tif", land()).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:60_000])
    radar = write_tiff(tmp_path / "radar.tif", np.ones((9, 9), np.complex64))
    raster = open_raster(tmp_path / "cut.tif")
    with pytest.raises(ImageError, match=r"rows 0 to 200 of .*cut\.tif cannot be read"):
        raster.read(0, 200)
    raster.close()
    for path, says in {
        radar: "complex64 values",
        tmp_path / "text.vrt": "not a raster",
        tmp_path / "empty.zarr": "not a Zarr array",
        tmp_path / "text.ome.tif": "not an OME-TIFF",
        tmp_path / "none.tif": "no such file",
        time_series: r"more than one picture \(t 4, c 3, y 8, x 9\)",
    }.items():
        with pytest.raises(ImageError, match=says):
            open_raster(path)


# Segmenting them. What must come out is what the same tiles give of the picture in memory.

TILES = {"tile": 64, "overlap": 0.25}
IN_TILES = SegmentOptions(**TILES)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    from tiny import write_colors_model

    return Segmenter(write_colors_model(tmp_path_factory.mktemp("models") / "colors.onnx"))


def test_a_geotiff_comes_out_in_its_place_with_the_labels_of_the_picture(segmenter, tmp_path):
    values = land()
    out = tmp_path / "out" / "a.labels.tif"
    summary = segment_raster(segmenter, write_tiff(tmp_path / "a.tif", values), {"geotiff": out}, IN_TILES)
    expected = segmenter(values, **TILES)
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(1), expected.labels)
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == UTM.transform
        assert file.colormap(1)[1] == (255, 0, 0, 255)
        assert file.nodata == 255
    assert [(c["name"], c["pixels"]) for c in summary["classes"]] == [
        (c["name"], c["pixels"]) for c in expected.to_dict()["classes"]
    ]
    assert [p.name for p in out.parent.iterdir()] == ["a.labels.tif"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_labels(kind, segmenter, tmp_path):
    values = land()
    out = tmp_path / "a.labels.tif"
    segment_raster(segmenter, write_kind(kind, tmp_path, values), {"geotiff": out}, IN_TILES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(out) as file:
            np.testing.assert_array_equal(file.read(1), segmenter(values, **TILES).labels)


def test_pixels_without_data_get_the_ignore_id(segmenter, tmp_path):
    values = land()
    values[30:90, 20:140] = 7
    out = tmp_path / "a.labels.tif"
    segment_raster(segmenter, write_tiff(tmp_path / "a.tif", values, nodata=7), {"geotiff": out}, IN_TILES)
    with rasterio.open(out) as file:
        labels = file.read(1)
        missing = (values == 7).all(axis=-1)
        np.testing.assert_array_equal(labels == 255, missing)
        np.testing.assert_array_equal(labels[~missing], segmenter(values, **TILES).labels[~missing])
        np.testing.assert_array_equal(file.dataset_mask() == 0, missing)


def test_sixteen_bit_rasters_are_segmented_after_stretching(segmenter, tmp_path):
    values = land().astype(np.uint16) * 40
    out = tmp_path / "a.labels.tif"
    path = write_tiff(tmp_path / "a.tif", values)
    segment_raster(segmenter, path, {"geotiff": out}, IN_TILES, ReadOptions(scale=(0, 255 * 40)))
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(1), segmenter(land(), **TILES).labels)


def test_a_network_of_five_channels_sees_five_bands(tmp_path):
    """Its class is the strongest band."""

    class Strongest:
        def __init__(self) -> None:
            from pixelwise.inference.preprocess import Preprocess
            from pixelwise.labels import LabelSet
            from tiny import CARD

            self.name = "pytorch"
            preprocess = Preprocess(mean=(0.0,) * 5, std=(1.0,) * 5)  # type: ignore[arg-type]
            self.card = CARD.replace(labels=LabelSet.of(list("abcde")), preprocess=preprocess, stride=1)

        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            return tiles

    segmenter = Segmenter.__new__(Segmenter)
    segmenter.engine = Strongest()
    segmenter.card, segmenter.classes = segmenter.engine.card, segmenter.engine.card.labels
    values = np.random.default_rng(0).integers(0, 4000, (90, 70, 6)).astype(np.uint16)
    out = tmp_path / "a.labels.tif"
    path = write_tiff(tmp_path / "a.tif", values)
    segment_raster(
        segmenter, path, {"geotiff": out}, IN_TILES, ReadOptions(bands=(6, 2, 3, 4, 1), scale=(0, 4000))
    )
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(1), values[..., [5, 1, 2, 3, 0]].argmax(axis=-1))


def test_other_formats_know_where_they_are_and_need_memory(segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    files = {name: tmp_path / f"a.{name}" for name in ("geojson", "csv")} | {"overlay": tmp_path / "a.png"}
    with pytest.raises(InputError, match="geojson, csv, overlay need all of them in memory"):
        segment_raster(segmenter, path, files, IN_TILES, ReadOptions(max_pixels=200 * 170 - 1))
    segment_raster(segmenter, path, files, IN_TILES)
    content = json.loads(files["geojson"].read_text())
    assert "32633" in content["crs"]["properties"]["name"]
    x, y = content["features"][0]["geometry"]["coordinates"][0][0]
    assert 500_000 <= x <= 501_700
    assert 4_598_000 <= y <= 4_600_000
    assert ",3400000.0\n" not in files["csv"].read_text()
    assert "square_metres" in files["csv"].read_text()
    with Image.open(files["overlay"]) as overlay:
        assert overlay.size == (170, 200)


def test_confidence_of_a_raster_is_that_of_the_picture(segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    files = {"geotiff": tmp_path / "a.labels.tif", "confidence": tmp_path / "a.confidence.png"}
    with pytest.raises(Stop):
        segment_raster(counting(segmenter, 9)[0], path, files, IN_TILES)
    segment_raster(segmenter, path, files, IN_TILES, run=RunOptions(resume=True))
    expected = segmenter(land(), confidence=True, **TILES).confidence
    with Image.open(files["confidence"]) as image:
        np.testing.assert_array_equal(np.asarray(image), np.round(expected * 255))


def test_seams_of_a_raster_are_reported_and_its_overlap_measured(segmenter, tmp_path, capsys):
    values, notes = land(), []
    values[30:90, 20:140] = 7
    path = write_tiff(tmp_path / "a.tif", values, nodata=7)
    files = {"geotiff": tmp_path / "b.tif"}
    segment_raster(
        segmenter,
        path,
        files,
        SegmentOptions(tile=64, overlap="auto"),
        run=RunOptions(note=notes.append),
        seams=True,
    )
    measured = capsys.readouterr().err
    assert any("neighbouring tiles differ on" in sentence for sentence in notes)
    overlap = int(re.search(r"overlap (\d+) px", measured)[1])
    with rasterio.open(files["geotiff"]) as file:
        missing = (values == 7).all(axis=-1)
        expected = np.where(missing, 255, segmenter(values, tile=64, overlap=overlap).labels)
        np.testing.assert_array_equal(file.read(1), expected)


class Stop(Exception):
    pass


def stop(*arguments: object) -> None:
    raise Stop


def under(settings: str, folder: Path) -> Journal:
    """A journal of these settings; nothing is written before something is finished."""
    return Journal(folder, {"settings": settings}, resume=True)


def counting(segmenter: Segmenter, stop_after: int | None) -> tuple[Segmenter, list[bytes]]:
    """A segmenter whose network writes down what it saw, and gives up after so many tiles."""
    seen: list[bytes] = []

    class Counting:
        name, card = segmenter.engine.name, segmenter.card

        def __call__(self, tiles: np.ndarray) -> np.ndarray:
            if stop_after is not None and len(seen) == stop_after:
                raise Stop
            seen.append(tiles.tobytes())
            return segmenter.engine(tiles)

    copy = Segmenter.__new__(Segmenter)
    copy.engine, copy.card, copy.classes = Counting(), segmenter.card, segmenter.classes
    return copy, seen


@pytest.mark.parametrize("stop_after", [0, 1, 5, 9, 14, 19])
def test_a_resumed_run_gives_the_same_bytes_and_repeats_no_tile(stop_after, segmenter, tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (230, 170, 3), np.uint8)
    values[100:140, 50:60] = 0
    path = write_tiff(tmp_path / "a.tif", values, nodata=0)
    straight, all_tiles = counting(segmenter, None)
    segment_raster(straight, path, {"geotiff": tmp_path / "straight.tif"}, IN_TILES)
    files = {"geotiff": tmp_path / "resumed.tif"}
    stopped, before = counting(segmenter, stop_after)
    with pytest.raises(Stop):
        segment_raster(stopped, path, files, IN_TILES, run=RunOptions(journal=under("s", tmp_path)))
    assert not files["geotiff"].exists()
    going_on, after = counting(segmenter, None)
    segment_raster(going_on, path, files, IN_TILES, run=RunOptions(resume=True, journal=under("s", tmp_path)))
    assert files["geotiff"].read_bytes() == (tmp_path / "straight.tif").read_bytes()
    assert before + after == all_tiles
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {JOURNAL, "a.tif", "resumed.tif", "straight.tif"}


@pytest.mark.parametrize("stop_after", [None, 4, "the last tile"])
def test_what_is_cleaned_up_is_the_map_without_the_pixels_that_have_no_data(
    stop_after, segmenter, tmp_path, monkeypatch
):
    """They are no class: no region reaches through them, what would go to them stays, and so do they."""
    values = land(120, 100)
    values[30:90, 20:60] = 7
    values[50:54, 30:36] = (0, 255, 0)  # an island among them, smaller than what is to go
    path = write_tiff(tmp_path / "a.tif", values, nodata=7)
    missing = (values == 7).all(axis=-1)
    decided = segmenter(values, confidence=True, **TILES)
    indices = np.where(missing, 4, decided.labels).astype(np.uint8)
    cleaned = plain(indices, Cleanup(40, (0, 1), (3,)))
    kept = missing | (cleaned == 4)
    expected = np.where(kept, np.where(missing, 255, indices), cleaned)
    expected[decided.confidence < np.float32(0.3)] = 255
    assert (expected[50:54, 30:36] == 2).all()
    files = {"geotiff": tmp_path / "a.labels.tif", "npy": tmp_path / "a.npy"}
    options = replace(
        IN_TILES, min_area=40, fill_holes=("dark", "red"), largest_only=("blue",), min_confidence=0.3
    )
    if stop_after == "the last tile":
        monkeypatch.setattr("pixelwise.pipeline.raster.clean_bands", stop)
    if stop_after is not None:
        stops = counting(segmenter, stop_after if isinstance(stop_after, int) else None)[0]
        with pytest.raises(Stop):
            segment_raster(stops, path, files, options)
        assert (tmp_path / ".a.labels.tif.unfinished").is_dir()
    monkeypatch.undo()
    run = RunOptions(resume=stop_after is not None)
    summary = segment_raster(segmenter, path, files, options, run=run)
    with rasterio.open(files["geotiff"]) as file:
        np.testing.assert_array_equal(file.read(1), expected)
    np.testing.assert_array_equal(np.load(files["npy"]), expected)
    assert {c["id"]: c["pixels"] for c in summary["classes"]} == {
        i: n for i, n in enumerate(np.bincount(expected.ravel())) if n and i != 255
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.labels.tif", "a.npy", "a.tif"]


def test_a_raster_is_cleaned_up_in_bands_of_any_height(segmenter, tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", land())
    options = replace(IN_TILES, min_area=60)
    for pixels in (1, 170 * 7, 4_000_000):
        monkeypatch.setattr("pixelwise.pipeline.raster.CLEANED_PIXELS", pixels)
        segment_raster(segmenter, path, {"geotiff": tmp_path / f"{pixels}.tif"}, options)
        with rasterio.open(tmp_path / f"{pixels}.tif") as file:
            np.testing.assert_array_equal(file.read(1), segmenter.segment(land(), options).labels)


def test_unfinished_work_of_other_settings_or_sources_is_refused_or_thrown_away(segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    files = {"geotiff": tmp_path / "labels.tif"}
    with pytest.raises(Stop):
        segment_raster(
            counting(segmenter, 7)[0], path, files, IN_TILES, run=RunOptions(journal=under("one", tmp_path))
        )
    with pytest.raises(OutputError, match="other settings"):
        segment_raster(
            segmenter, path, files, IN_TILES, run=RunOptions(resume=True, journal=under("two", tmp_path))
        )
    write_tiff(path, land() // 2)
    with pytest.raises(OutputError, match="another source or an older version"):
        segment_raster(
            segmenter, path, files, IN_TILES, run=RunOptions(resume=True, journal=under("one", tmp_path))
        )
    with pytest.raises(OutputError, match=r"--resume.*--overwrite"):
        segment_raster(segmenter, path, files, IN_TILES, run=RunOptions(journal=under("two", tmp_path)))
    segment_raster(
        segmenter, path, files, IN_TILES, run=RunOptions(overwrite=True, journal=under("two", tmp_path))
    )
    with rasterio.open(files["geotiff"]) as file:
        np.testing.assert_array_equal(file.read(1), segmenter(land() // 2, **TILES).labels)


def test_torn_work_begins_again(segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    files = {"geotiff": tmp_path / "labels.tif"}
    with pytest.raises(Stop):
        segment_raster(counting(segmenter, 9)[0], path, files, IN_TILES)
    work = tmp_path / ".labels.tif.unfinished"
    (work / "pending.npz").write_bytes((work / "pending.npz").read_bytes()[:50])
    segment_raster(segmenter, path, files, IN_TILES, run=RunOptions(resume=True))
    with rasterio.open(files["geotiff"]) as file:
        np.testing.assert_array_equal(file.read(1), segmenter(land(), **TILES).labels)


@pytest.mark.parametrize("file", ["labels", "confidence"])
def test_work_of_which_rows_are_missing_begins_again(file, segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    files = {"geotiff": tmp_path / "labels.tif", "confidence": tmp_path / "confidence.png"}
    with pytest.raises(Stop):
        segment_raster(counting(segmenter, 9)[0], path, files, IN_TILES)
    work = tmp_path / ".labels.tif.unfinished"
    (work / file).write_bytes((work / file).read_bytes()[:-1])
    segment_raster(segmenter, path, files, IN_TILES, run=RunOptions(resume=True))
    expected = segmenter(land(), confidence=True, **TILES)
    with rasterio.open(files["geotiff"]) as labels, Image.open(files["confidence"]) as confidence:
        np.testing.assert_array_equal(labels.read(1), expected.labels)
        np.testing.assert_array_equal(np.asarray(confidence), np.round(expected.confidence * 255))


@pytest.mark.parametrize("damage", ["torn", "spoilt", "none"])
def test_an_answer_that_is_not_whole_is_asked_for_again(damage, segmenter, tmp_path):
    path = write_tiff(tmp_path / "a.tif", land())
    files = {"geotiff": tmp_path / "labels.tif"}
    stopped, before = counting(segmenter, 7)  # five tiles a row: two of the second
    with pytest.raises(Stop):
        segment_raster(stopped, path, files, IN_TILES)
    answers = tmp_path / ".labels.tif.unfinished" / "answers"
    whole = answers.read_bytes()
    answers.write_bytes({"torn": whole[:-1], "spoilt": whole[:-1] + b"x", "none": b""}[damage])
    going_on, after = counting(segmenter, None)
    segment_raster(going_on, path, files, IN_TILES, run=RunOptions(resume=True))
    assert after[0] == before[5 if damage == "none" else 6]
    with rasterio.open(files["geotiff"]) as file:
        np.testing.assert_array_equal(file.read(1), segmenter(land(), **TILES).labels)


def test_a_tile_chosen_by_memory_is_kept_on_going_on(segmenter, tmp_path, monkeypatch, capsys):
    """The memory that is free differs from run to run; the tiles of one raster must not."""
    monkeypatch.setattr("pixelwise.segmenter.SIDES", (64, 96))
    path = write_tiff(tmp_path / "a.tif", land())
    files = {"geotiff": tmp_path / "labels.tif"}
    stopped, _ = counting(segmenter, 9)  # two of them to find the tile
    with pytest.raises(Stop):
        segment_raster(stopped, path, files, SegmentOptions(tile="auto"))
    assert "tiles of 96 x 96" in capsys.readouterr().err
    monkeypatch.setattr("pixelwise.segmenter.SIDES", (64,))
    segment_raster(segmenter, path, files, SegmentOptions(tile="auto"), run=RunOptions(resume=True))
    assert capsys.readouterr().err == ""
    with rasterio.open(files["geotiff"]) as file:
        np.testing.assert_array_equal(file.read(1), segmenter(land(), tile=96).labels)


RUN_SLOWLY = """
import sys, time
from pathlib import Path
from pixelwise import SegmentOptions
from pixelwise.pipeline.options import RunOptions
from pixelwise.pipeline.raster import segment_raster
from pixelwise.segmenter import Segmenter

model, source, out, log = map(Path, sys.argv[1:5])
segmenter = Segmenter(model)
engine = segmenter.engine

class Slow:
    name, card = engine.name, engine.card
    def __call__(self, tiles):
        time.sleep(0.004)
        logits = engine(tiles)
        with open(log, "ab") as file:
            file.write(b"%d\\n" % hash(tiles.tobytes()))
        return logits

segmenter.engine = Slow()
run = RunOptions(resume="--resume" in sys.argv)
segment_raster(segmenter, source, {"geotiff": out}, SegmentOptions(tile=64, overlap=0.25), run=run)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    "kill_after", [47, pytest.param(3, marks=pytest.mark.slow), pytest.param(130, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_and_repeats_no_tile_but_the_last(kill_after, colors_model, tmp_path):
    """SIGKILL, which nothing can prepare for, somewhere after so many tiles."""
    values = np.random.default_rng(0).integers(0, 255, (560, 500, 3), np.uint8)
    source = write_tiff(tmp_path / "a.tif", values)
    grid = Tiling(64, 0.25, multiple=32).grid((560, 500))

    def start(name: str, *more: str) -> subprocess.Popen[bytes]:
        arguments = [colors_model, source, tmp_path / f"{name}.tif", tmp_path / f"{name}.log", *more]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        return subprocess.Popen([sys.executable, "-c", RUN_SLOWLY, *map(str, arguments)], env=environment)

    def tiles(name: str) -> list[str]:
        log = tmp_path / f"{name}.log"
        return log.read_text().splitlines() if log.exists() else []

    assert start("straight").wait() == 0
    process = start("killed")
    while len(tiles("killed")) < kill_after:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9
    before = tiles("killed")
    assert kill_after <= len(before) < grid.count
    assert not (tmp_path / "killed.tif").exists()
    assert start("killed", "--resume").wait() == 0
    after = tiles("killed")[len(before) :]
    all_tiles = tiles("straight")
    assert len(all_tiles) == grid.count
    repeated = len(before) + len(after) - grid.count
    assert repeated in (0, 1)
    assert after == all_tiles[grid.count - len(after) :]
    assert (tmp_path / "killed.tif").read_bytes() == (tmp_path / "straight.tif").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGSTOP to hold a run where it is")
@pytest.mark.parametrize("more", [["--resume"], ["--overwrite"]])
def test_of_two_runs_on_one_raster_the_second_says_who_is_at_work(more, colors_model, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (200, 180, 3), np.uint8)
    source = write_tiff(tmp_path / "a.tif", values)

    def start(name: str) -> subprocess.Popen[bytes]:
        arguments = [colors_model, source, tmp_path / f"{name}.labels.tif", tmp_path / f"{name}.log"]
        return subprocess.Popen([sys.executable, "-c", RUN_SLOWLY, *map(str, arguments)])

    assert start("b").wait() == 0
    first = start("a")
    while not (tmp_path / "a.log").exists():
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    second = pixelwise("segment", source, "--model", colors_model, "--out", tmp_path, *more, cwd=tmp_path)
    assert second.returncode == 2, second.stderr
    assert f"a.labels.tif is being worked on by another run (process {first.pid})".encode() in second.stderr
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert (tmp_path / "a.labels.tif").read_bytes() == (tmp_path / "b.labels.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


def pixelwise(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    run = [sys.executable, "-m", "pixelwise", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, cwd=cwd, **options)


def test_a_geotiff_and_a_photo_through_the_command_line(colors_model, tmp_path):
    (tmp_path / "in").mkdir()
    values = land().astype(np.uint16) * 40
    write_tiff(tmp_path / "in" / "map.tif", values)
    Image.fromarray(quadrants()).save(tmp_path / "in" / "photo.png")
    run = ["segment", "in", "--model", colors_model, "--out", "out"]
    result = pixelwise(*run, "--tile", 64, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert b"percentile" in result.stderr
    photo, raster = (json.loads(line) for line in result.stdout.splitlines())
    assert photo["files"]["labels"] == "out/photo.labels.png"
    assert raster["files"] == {"geotiff": "out/map.labels.tif"}
    assert (raster["height"], raster["width"]) == (200, 170)
    with rasterio.open(tmp_path / "out" / "map.labels.tif") as file:
        assert file.crs.to_epsg() == 32633
    crf = pixelwise(*run[:-1], "crf", "--tile", 64, "--crf", "vgg", "--rotate", 180, "--seams", cwd=tmp_path)
    assert crf.returncode == 0, crf.stderr
    assert b"in/photo.png: no pixel is seen by two tiles" in crf.stderr
    assert b"in/map.tif: neighbouring tiles differ on" in crf.stderr
    with rasterio.open(tmp_path / "crf" / "map.labels.tif") as file:
        assert file.read(1).any()
    scaled = ["segment", "in/map.tif", *run[2:-1], "scaled", "--tile", 64, "--overlap", 0.25]
    result = pixelwise(*scaled, "--scale", "0,10200", "--bands", "1,2,3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with rasterio.open(tmp_path / "scaled" / "map.labels.tif") as file:  # 0 to 10200 are 40 times 0 to 255
        np.testing.assert_array_equal(file.read(1), Segmenter(colors_model)(land(), **TILES).labels)
    again = pixelwise(*run, "--tile", 64, "--resume", cwd=tmp_path)
    assert again.returncode == 0
    assert b"2 of 2 were finished before" in again.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ru_maxrss in kilobytes")
def test_a_raster_of_32768_squared_is_segmented_in_less_than_a_gigabyte_and_a_half(colors_model, tmp_path):
    """Stripes of 96 pixels along both axes; its pixels take 3.2 GB, its logits would take 17 GB."""
    side, stripe = 32768, 96
    profile = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "count": 3,
        "dtype": "uint8",
        "compress": "lzw",
    }
    block = np.arange(side) // stripe
    classes = np.add.outer(block[: 4 * stripe], block) % 4  # it repeats after four stripes
    rows = np.vstack([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.uint8)[classes].transpose(2, 0, 1)
    place = {"crs": UTM.crs, "transform": rasterio.Affine(*UTM.transform)}
    with rasterio.open(tmp_path / "a.tif", "w", blockysize=64, **profile, **place) as file:
        for top in range(0, side, len(classes)):
            height = min(len(classes), side - top)
            file.write(rows[:, :height], window=rasterio.windows.Window(0, top, side, height))
    run = [sys.executable, "-m", "pixelwise", "segment", "a.tif", "--model", str(colors_model)]
    # Started by a process that is small itself: the peak of a child counts what it was before it became another.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    measured = subprocess.run(
        [sys.executable, "-c", measure, *run], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    peak = int(measured.stdout) * 1024
    assert peak < 1_500_000_000
    with rasterio.open(tmp_path / "a.labels.tif") as file:
        assert (file.height, file.width, file.crs.to_epsg()) == (side, side, 32633)
        for top in (0, 16_000, side - len(classes)):
            window = rasterio.windows.Window(0, top, side, len(classes))
            expected = classes[(np.arange(len(classes)) + top) % len(classes)]
            np.testing.assert_array_equal(file.read(1, window=window), expected)


def test_a_picture_comes_through_a_pipe(colors_model, tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    run = ["segment", "-", "--model", colors_model, "--format", "npy"]
    both = pixelwise(*run, "a.png", cwd=tmp_path, input=data)  # of the other there is a journal
    assert both.returncode == 0, both.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), quadrant_labels())
    (tmp_path / "stdin.npy").unlink()
    result = pixelwise(*run, cwd=tmp_path, input=data)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "stdin.npy"), quadrant_labels())
    empty = pixelwise(*run, "--overwrite", cwd=tmp_path, input=b"")
    assert empty.returncode == 2
    assert b"empty" in empty.stderr
