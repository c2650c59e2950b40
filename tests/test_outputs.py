"""outputs: every exact format reads back to the same label map, and agrees with the tools that others read it with."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise import LabelSet, Segmentation, outputs
from pixelwise.errors import ImageError, InputError, MissingExtraError, UnknownNameError
from pixelwise.georeference import Georeference
from pixelwise.outputs import polygons
from pixelwise.outputs.areas import areas_csv, count_ids, present, square_metres_per_pixel
from pixelwise.outputs.coco import compress, decode_rle, decompress, encode_rle, labels_from_coco, to_coco
from pixelwise.outputs.formats import FORMATS
from pixelwise.outputs.geo import CLASSES_TAG, labels_from_geojson, to_geojson
from pixelwise.outputs.polygons import Polygon, fill, simplify, trace
from pixelwise.outputs.reading import read_labels

SMALL = LabelSet.of(["ground", "house", "tree"], ids=[3, 7, 20], ignore_id=0)
MANY = LabelSet.of([f"c{i}" for i in range(600)])
FULL = LabelSet.of([f"c{i}" for i in range(256)], ignore_id=None)  # no number is left to ignore
FAR = LabelSet.of(["near", "far"], ids=[1, 70_000])  # more than 16 bits
UTM = Georeference("EPSG:32633", (0.5, 0, 499_980.25, 0, -0.5, 5_300_040.75))
TURNED = Georeference("EPSG:3035", (0.3, 0.4, 4_321_000, -0.4, 0.3, 3_210_000))
DEGREES = Georeference("EPSG:4326", (1e-5, 0, 13.4, 0, -1e-5, 52.5))


def draw_map(classes: LabelSet, height: int, width: int, grain: int, seed: int) -> np.ndarray:
    """Noise (grain 1) or patches of up to grain pixels, of a few of the ids and the ignore id."""
    rng = np.random.default_rng(seed)
    ids = [*classes.ids, *([] if classes.ignore_id is None else [classes.ignore_id])]
    few = rng.choice(ids, min(len(ids), rng.integers(1, 6)), replace=False)
    rough = rng.choice(few, (-(-height // grain), -(-width // grain))).astype(classes.dtype)
    return rough.repeat(grain, 0).repeat(grain, 1)[:height, :width]


def maps(*classes: LabelSet):
    def one(which, height, width, grain, seed):
        return which, draw_map(which, height, width, grain, seed)

    side = st.integers(1, 14)
    return st.builds(one, st.sampled_from(classes), side, side, st.integers(1, 3), st.integers(0, 9999))


def seg(labels: np.ndarray, classes: LabelSet, georeference: Georeference | None = None) -> Segmentation:
    return Segmentation(labels, classes, np.zeros((*labels.shape, 3), np.uint8), georeference=georeference)


RING = np.array([[1, 1, 1, 1], [1, 0, 2, 1], [1, 1, 0, 1], [1, 1, 1, 0]], np.uint8)
"""A region with a hole that touches itself at a corner, another that meets the outside only in a corner."""

# ---------------------------------------------------------------------------------------------- polygons


@settings(deadline=None, max_examples=150)
@given(maps(SMALL, MANY))
def test_polygons_filled_give_the_map_they_were_traced_from(drawn):
    labels = drawn[1]
    polygons = trace(labels)
    painted = np.full(labels.shape, 59_999, np.uint16)
    fill(polygons, painted)
    np.testing.assert_array_equal(painted, labels)
    assert sum(polygon.pixels for polygon in polygons) == labels.size


@settings(deadline=None, max_examples=100)
@given(maps(SMALL))
def test_polygons_are_valid_and_as_large_as_their_pixels_and_run_the_right_way(drawn):
    shapely = pytest.importorskip("shapely")
    for polygon in trace(drawn[1]):
        shape = shapely.Polygon(polygon.rings[0], polygon.rings[1:])
        assert shape.is_valid
        assert shape.area == polygon.pixels
        assert shape.bounds == polygon.box
        assert all(ring.is_simple for ring in (shape.exterior, *shape.interiors))
        assert shape.exterior.is_ccw  # in columns and rows, so clockwise to the eye
        assert not any(ring.is_ccw for ring in shape.interiors)


@settings(deadline=None, max_examples=60)
@given(maps(SMALL))
def test_polygons_are_those_of_gdal(drawn):
    features = pytest.importorskip("rasterio.features")
    shapely = pytest.importorskip("shapely")
    labels = drawn[1]
    ours = {(p.id, shapely.Polygon(p.rings[0], p.rings[1:]).normalize().wkt) for p in trace(labels)}
    theirs = {(int(id), shapely.geometry.shape(s).normalize().wkt) for s, id in features.shapes(labels)}
    assert ours == theirs


def test_a_region_that_touches_itself_at_a_corner_keeps_simple_rings():
    ring = trace(RING)[0]
    assert ring.pixels == 12
    assert [len(corners) for corners in ring.rings] == [6, 6]
    assert {tuple(c) for c in ring.rings[1].tolist()} == {(1, 1), (3, 1), (3, 3), (2, 3), (2, 2), (1, 2)}
    assert [p.id for p in trace(RING)] == [1, 0, 2, 0, 0]
    assert [p.id for p in trace(RING, ids=[2, 9])] == [2]


@settings(deadline=None, max_examples=100)
@given(maps(SMALL))
def test_without_holes_the_pieces_are_still_the_map(drawn):
    labels = drawn[1]
    whole, pieces = trace(labels), trace(labels, holes=False)
    painted = np.full(labels.shape, 99, np.uint8)
    fill(pieces, painted)
    np.testing.assert_array_equal(painted, labels)
    assert all(len(piece.rings) == 1 for piece in pieces)
    assert sum(piece.pixels for piece in pieces) == labels.size
    assert {p.region: p.id for p in pieces} == {p.region: p.id for p in whole}
    for polygon in whole:
        if len(polygon.rings) == 1:
            (same,) = [piece for piece in pieces if piece.region == polygon.region]
            np.testing.assert_array_equal(same.rings[0], polygon.rings[0])


@settings(deadline=None, max_examples=60)
@given(maps(SMALL), st.floats(0.1, 5))
def test_simplified_neighbours_keep_one_border(drawn, tolerance_px):
    shapely = pytest.importorskip("shapely")
    labels = drawn[1]
    exact = [shapely.Polygon(p.rings[0], p.rings[1:]) for p in trace(labels, junctions=True)]
    assert shapely.coverage_is_valid(exact)
    found = simplify(labels, tolerance_px)
    simple = [shapely.Polygon(p.rings[0], p.rings[1:]) for p in found]
    assert shapely.is_valid(simple).all()
    assert shapely.coverage_is_valid(simple)
    assert sum(shape.area for shape in simple) == pytest.approx(labels.size)
    assert sum(map(shapely.get_num_coordinates, simple)) <= sum(map(shapely.get_num_coordinates, exact))
    assert [p.pixels for p in found] == [p.pixels for p in trace(labels)]


def test_a_staircase_becomes_a_slope():
    pytest.importorskip("shapely")
    labels = np.tri(40, dtype=np.uint8)
    assert len(trace(labels)[-1].rings[0]) >= 80
    assert len(simplify(labels, 2)[-1].rings[0]) < 10
    with pytest.raises(InputError, match="tolerance_px must be 0 or more, got -1"):
        simplify(labels, -1)


@settings(deadline=None, max_examples=100)
@given(st.integers(3, 12), st.integers(0, 99_999))
def test_fill_takes_the_pixels_that_rasterio_takes(corners, seed):
    features = pytest.importorskip("rasterio.features")
    ring = np.random.default_rng(seed).uniform((-5, -5), (25, 15), (corners, 2))
    ours = np.zeros((10, 20), np.uint8)
    fill([Polygon(1, 0, 0, (ring,))], ours)
    shape = {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]}
    np.testing.assert_array_equal(ours, features.rasterize([shape], out_shape=(10, 20)))


def test_a_label_map_of_another_kind_is_refused():
    for wrong in (np.zeros((2, 2)), np.zeros(3, np.uint8)):
        with pytest.raises(InputError, match=r"\(h, w\) integers, got"):
            trace(wrong)
    assert trace(np.zeros((0, 4), np.uint8)) == []


# -------------------------------------------------------------------------------------------------- coco


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, NumPy 2
@settings(deadline=None, max_examples=150)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9999), st.sampled_from([0, 0.02, 0.5, 0.98, 1]))
def test_run_lengths_are_those_of_pycocotools(height, width, seed, share):
    run_lengths = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).random((height, width)) < share
    theirs = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_rle(mask)
    assert ours == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(ours), mask)
    np.testing.assert_array_equal(decode_rle(theirs), mask)
    np.testing.assert_array_equal(decode_rle({**ours, "counts": decompress(ours["counts"]).tolist()}), mask)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=12))
def test_run_lengths_of_any_size_are_unpacked_as_they_were_packed(counts):
    assert decompress(compress(np.array(counts))).tolist() == counts


def test_damaged_run_lengths_are_refused():
    with pytest.raises(InputError, match="add up to 2 x 2 = 4, got a sum of 5"):
        decode_rle({"size": [2, 2], "counts": [2, 3]})
    for text in ("é", " ", "P"):  # a foreign letter, one too low, one that says more follow
        with pytest.raises(InputError, match="letters that COCO's text does not have"):
            decompress(text)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, NumPy 2
@settings(deadline=None, max_examples=80)
@given(maps(SMALL, MANY), st.sampled_from(["rle", "counts", "polygons"]))
def test_a_coco_file_says_what_pycocotools_finds(drawn, kind):
    run_lengths = pytest.importorskip("pycocotools.mask")
    classes, labels = drawn
    content = json.loads(json.dumps(to_coco(labels, classes, kind=kind, image_id=5)))
    h, w = labels.shape
    painted = np.full(labels.shape, classes.ignore_id, classes.dtype)
    for annotation in content["annotations"]:
        outline = annotation["segmentation"]
        if kind == "rle":
            encoded = {**outline, "counts": outline["counts"].encode()}
        elif kind == "counts":
            encoded = run_lengths.frPyObjects(outline, h, w)
        else:
            encoded = run_lengths.merge(run_lengths.frPyObjects(outline, h, w))
        assert annotation["area"] == run_lengths.area(encoded)
        assert annotation["bbox"] == run_lengths.toBbox(encoded).tolist()
        assert (annotation["image_id"], annotation["iscrowd"]) == (5, 0)
        inside = run_lengths.decode(encoded) == 1
        assert (painted[inside] == classes.ignore_id).all()  # annotations never overlap
        painted[inside] = annotation["category_id"]
    np.testing.assert_array_equal(painted, labels)
    np.testing.assert_array_equal(labels_from_coco(content, classes), labels)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, NumPy 2
def test_cocos_own_reader_loads_what_we_save(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    for format, ending in (("coco", ".coco.json"), ("coco-polygons", ".polygons.json")):
        path = seg(RING, LabelSet.of(["a", "b", "c"])).save(tmp_path / f"x{ending}")
        known = coco.COCO(str(path))
        assert [c["name"] for c in known.loadCats(known.getCatIds())] == ["a", "b", "c"], format
        found = sum(
            known.annToMask(a) * a["category_id"] for a in known.loadAnns(known.getAnnIds(imgIds=[1]))
        )
        np.testing.assert_array_equal(found, RING)


def test_polygons_of_other_tools_are_read_by_pixel_centres():
    content = to_coco(np.zeros((4, 4), np.uint8), LabelSet.of(["a", "b"]))
    content["annotations"] = [
        {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 0, 4]]},
        {"image_id": 2, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
    ]
    content["images"].append({"id": 2, "width": 4, "height": 4})
    labels = labels_from_coco(content, LabelSet.of(["b", "x", "a"]), image_id=1)  # matched by name
    y, x = np.mgrid[:4, :4]
    np.testing.assert_array_equal(labels == 0, x + y < 3)
    assert (labels[labels != 0] == 255).all()
    with pytest.raises(InputError, match="image_id must name one of the pictures 1, 2, got None"):
        labels_from_coco(content, LabelSet.of(["a", "b"]))
    with pytest.raises(UnknownNameError, match="Unknown class 'b'"):
        labels_from_coco(content, LabelSet.of(["a", "c"]), image_id=1)
    with pytest.raises(InputError, match="10 pixels belong to no class, the first at"):
        labels_from_coco(content, LabelSet.of(["a", "b"], ignore_id=None), image_id=1)
    with pytest.raises(InputError, match="not a file of COCO's annotations"):
        labels_from_coco({"images": [], "info": 1}, SMALL)


def test_corners_that_lie_nowhere_are_refused():
    for far in (float("nan"), float("inf"), 1e300, -2e9):
        with pytest.raises(InputError, match="far from any map"):
            fill([Polygon(1, 0, 0, (np.array([[0, 0], [far, 0], [2, 2]]),))], np.zeros((3, 3), np.uint8))
    empty = np.zeros((3, 3), np.uint8)
    fill([Polygon(1, 0, 0, (np.zeros((0, 2)),))], empty)
    fill([Polygon(1, 0, 0, (np.array([[9e8, 0], [9e8, 3], [8e8, 2]]),))], empty)
    assert not empty.any()
    content = to_coco(RING, LabelSet.of(["a", "b", "c"]))
    content["annotations"][0]["segmentation"] = [[0, 0, 1]]  # half a corner
    with pytest.raises(InputError, match="not a file of COCO's annotations"):
        labels_from_coco(content, LabelSet.of(["a", "b", "c"]))
    feature = {"properties": {"name": "a"}, "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1]]]}}
    with pytest.raises(InputError, match="not a GeoJSON FeatureCollection"):
        labels_from_geojson({"features": [feature]}, LabelSet.of(["a"]), size_hw=(2, 2))


# --------------------------------------------------------------------------------------------- round trips


def exact_endings(classes: LabelSet) -> list[str]:
    pictures = [".labels.png", ".ids.png"] if classes is not FAR else []
    return [*pictures, ".npy", ".labels.tif", ".geojson", ".coco.json", ".polygons.json"]


@settings(deadline=None, max_examples=60)
@given(maps(SMALL, MANY, FULL, FAR), st.sampled_from([None, UTM, TURNED, DEGREES]))
def test_every_exact_format_reads_back(tmp_path_factory, drawn, georeference):
    pytest.importorskip("rasterio")
    classes, labels = drawn
    folder = tmp_path_factory.mktemp("exact")
    for ending in exact_endings(classes):
        format = "ids" if ending == ".ids.png" else None
        path = seg(labels, classes, georeference).save(folder / f"x{ending}", format=format)
        read = read_labels(path, classes)
        assert read.dtype == classes.dtype, ending
        np.testing.assert_array_equal(read, labels, err_msg=ending)
    assert len(list(folder.iterdir())) == len(exact_endings(classes))  # nothing lies beside them


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (300, 517)])
def test_rows_columns_and_pictures_of_several_tiles_read_back(tmp_path, shape):
    pytest.importorskip("rasterio")
    labels = draw_map(MANY, *shape, 3, 1)
    for ending in exact_endings(MANY):
        path = seg(labels, MANY, UTM).save(tmp_path / f"x{ending}")
        np.testing.assert_array_equal(read_labels(path, MANY), labels, err_msg=ending)


def test_ignored_pixels_of_few_classes_survive_the_palette(tmp_path):
    """Pillow packs 4 colours into 2 bits, which made 3 of 255."""
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    path = seg(labels, LabelSet.of(["a", "b", "c"])).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels(path, SMALL), labels)


def test_what_holds_no_label_map_is_not_read(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_labels(tmp_path / "x.png", SMALL)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"label maps are read from \.png, \.npy"):
        read_labels(tmp_path / "x.txt", SMALL)
    for name, data in (("x.json", b"{"), ("x.geojson", b"[]"), ("x.npy", b"?"), ("x.png", b"?")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read_labels(tmp_path / name, SMALL)
    np.save(tmp_path / "y.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"holds float64 \(2, 2\), expected a label map"):
        read_labels(tmp_path / "y.npy", SMALL)


# --------------------------------------------------------------------------------------------------- geo


def test_a_geotiff_keeps_place_colours_classes_and_nodata(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    labels = draw_map(SMALL, 300, 280, 3, 4)
    labels[0, 0] = 0
    path = seg(labels, SMALL, TURNED).save(tmp_path / "x.tif")
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 3035
        assert tuple(file.transform)[:6] == TURNED.transform
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), 0)
        assert file.colorinterp[0].name == "palette"
        assert {id: file.colormap(1)[id][:3] for id in SMALL.ids} == dict(
            zip(SMALL.ids, SMALL.colors, strict=True)
        )
        assert LabelSet.from_dict(json.loads(file.tags()[CLASSES_TAG])) == SMALL
        assert not file.read_masks(1)[labels == 0].any()
        assert file.block_shapes == [(256, 256)]


def test_a_geotiff_of_many_classes_has_colours_too(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(seg(np.array([[0, 599]], np.uint16), MANY, UTM).save(tmp_path / "x.tif")) as file:
        assert file.colormap(1)[599][:3] == MANY.colors[599]
        assert file.nodata == 65535


@settings(deadline=None, max_examples=50)
@given(maps(SMALL), st.sampled_from([UTM, TURNED, DEGREES]))
def test_geojson_lies_where_the_raster_lies(drawn, georeference):
    shapely = pytest.importorskip("shapely")
    rasterio = pytest.importorskip("rasterio")
    features = pytest.importorskip("rasterio.features")
    classes, labels = drawn
    content = json.loads(json.dumps(to_geojson(labels, classes, georeference)))
    assert content["crs"]["properties"]["name"] == f"urn:ogc:def:crs:EPSG::{georeference.epsg}"
    shapes = []
    for feature in content["features"]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert shape.exterior.is_ccw  # RFC 7946, 3.1.6
        assert not any(ring.is_ccw for ring in shape.interiors)
        properties = feature["properties"]
        assert shape.area == pytest.approx(properties["pixels"] * georeference.pixel_area, rel=1e-6)
        assert classes.names[classes.ids.index(properties["id"])] == properties["name"]
        assert ("square_metres" in properties) == (georeference is not DEGREES)
        shapes.append((feature["geometry"], properties["id"]))
    if shapes:
        burnt = features.rasterize(
            shapes, out_shape=labels.shape, transform=rasterio.Affine(*georeference.transform), dtype=np.uint8
        )
        np.testing.assert_array_equal(burnt, labels)


def test_without_a_georeference_geojson_speaks_of_columns_and_rows():
    content = to_geojson(RING, LabelSet.of(["a", "b", "c"]))
    assert content["crs"] is None
    assert content["raster"] == {"height": 4, "width": 4, "transform": [1, 0, 0, 0, 1, 0]}
    two = next(f for f in content["features"] if f["properties"]["name"] == "c")
    assert two["geometry"]["coordinates"] == [[[3, 1], [3, 2], [2, 2], [2, 1], [3, 1]]]
    assert two["properties"] == {"id": 2, "name": "c", "fill": "#3399ff", "pixels": 1}


def test_simplified_geojson_has_fewer_corners_and_nearly_the_same_map():
    pytest.importorskip("shapely")
    y, x = np.mgrid[:60, :80]
    labels = ((y - 30) ** 2 + (x - 40) ** 2 < 500).astype(np.uint8)
    classes = LabelSet.of(["out", "in"])
    exact, rough = to_geojson(labels, classes, UTM), to_geojson(labels, classes, UTM, simplify_px=2)
    assert len(json.dumps(rough)) < len(json.dumps(exact)) / 2
    assert (labels_from_geojson(rough, classes) != labels).mean() < 0.02


def test_geojson_of_other_tools_is_read_at_the_size_and_place_asked_for():
    square = [[[499_980.25, 5_300_040.75], [499_981.25, 5_300_040.75], [499_981.25, 5_300_039.75],
               [499_980.25, 5_300_039.75], [499_980.25, 5_300_040.75]]]  # fmt: skip
    feature = {
        "type": "Feature", "properties": {"name": "house"},
        "geometry": {"type": "MultiPolygon", "coordinates": [square]},
    }  # fmt: skip
    content = {"type": "FeatureCollection", "features": [feature]}
    labels = labels_from_geojson(content, SMALL, size_hw=(3, 4), georeference=UTM)
    assert labels.tolist() == [[7, 7, 0, 0], [7, 7, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(InputError, match="pass size_hw and georeference"):
        labels_from_geojson(content, SMALL)
    feature["geometry"]["type"] = "Point"
    with pytest.raises(InputError, match="got a Point"):
        labels_from_geojson(content, SMALL, size_hw=(3, 4))
    feature["properties"] = {"name": "horse"}
    with pytest.raises(UnknownNameError, match="did you mean 'house'"):
        labels_from_geojson(content, SMALL, size_hw=(3, 4))


def test_a_size_of_more_pixels_than_are_read_is_refused_before_there_is_a_map(monkeypatch):
    classes, labels = LabelSet.of(["a", "b"]), np.zeros((2, 3), np.uint8)
    coco, geojson = to_coco(labels, classes), to_geojson(labels, classes)
    monkeypatch.setattr(polygons, "MAX_LABELS", 6)
    assert labels_from_coco(coco, classes).shape == labels_from_geojson(geojson, classes).shape == (2, 3)
    for module in (outputs.coco, outputs.geo):
        monkeypatch.setattr(module, "blank", lambda *_: pytest.fail("memory was taken for it"))
    for height, width in ((2, 4), (7, 1), (-2, -3), (-1, 0), (True, 3), (2.0, 3), ("2", "3")):
        for size in (coco["images"][0], geojson["raster"]):
            size.update(height=height, width=width)
        for read in (partial(labels_from_coco, coco), partial(labels_from_geojson, geojson)):
            with pytest.raises(InputError, match="at most 6 pixels"):
                read(classes)
    with pytest.raises(InputError, match="a label map of 2 x 4 pixels cannot be read"):
        labels_from_geojson(geojson, classes, size_hw=(2, 4))


def test_a_crs_that_geojson_cannot_name_is_refused(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    crs = rasterio.crs.CRS.from_string("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m").to_wkt()
    custom = seg(RING, LabelSet.of(["a", "b", "c"]), Georeference(crs, UTM.transform))
    with pytest.raises(InputError, match="by its EPSG code and this one has none; save as geotiff"):
        custom.save(tmp_path / "x.geojson")
    with rasterio.open(custom.save(tmp_path / "x.tif")) as file:
        assert file.crs == rasterio.crs.CRS.from_wkt(crs)


def test_a_crs_that_does_not_exist_is_refused(tmp_path):
    pytest.importorskip("rasterio")
    nowhere = seg(RING, LabelSet.of(["a", "b", "c"]), Georeference("EPSG:999999", UTM.transform))
    for name in ("x.tif", "x.csv", "x.geojson"):
        with pytest.raises(InputError, match=r"an EPSG code that PROJ knows.*got 'EPSG:999999'"):
            nowhere.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_epsg_code_is_found_in_every_spelling():
    rasterio = pytest.importorskip("rasterio")
    for code in (32633, 4326, 2263):
        crs = rasterio.crs.CRS.from_epsg(code)
        for text in (f"EPSG:{code}", f"epsg:{code}", crs.to_wkt(), crs.to_wkt(version="WKT2_2019")):
            assert Georeference(text, UTM.transform).epsg == code
    assert Georeference(None, UTM.transform).epsg is None


@given(st.sampled_from([UTM, TURNED, DEGREES]), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_pixels_to_the_world_and_back(georeference, column, row):
    point = np.array([[column, row]])
    assert georeference.to_pixels(georeference.to_world(point)) == pytest.approx(point, abs=1e-3)


def test_a_transform_is_checked():
    with pytest.raises(InputError, match="6 finite numbers"):
        Georeference(None, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(InputError, match="onto a line"):
        Georeference(None, (1, 1, 0, 1, 1, 0))


# ------------------------------------------------------------------------------------------------- areas


@settings(deadline=None)
@given(maps(SMALL, MANY, FAR))
def test_ids_are_counted(drawn):
    ids, counts = np.unique(drawn[1], return_counts=True)
    assert count_ids(drawn[1]) == dict(zip(ids.tolist(), counts.tolist(), strict=True))


def test_ids_are_counted_across_bands_and_above_tables():
    rng = np.random.default_rng(0)
    large = rng.integers(0, 21, (3000, 2000), np.uint8)
    assert list(count_ids(large).values()) == np.bincount(large.ravel()).tolist()
    assert count_ids(large.T[::2]) == count_ids(np.ascontiguousarray(large.T[::2]))
    assert count_ids(np.array([[5, 2**31, 5]], np.uint32)) == {5: 2, 2**31: 1}
    assert count_ids(np.zeros((0, 3), np.uint8)) == {}


@pytest.mark.parametrize("name", ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1\n"])
def test_a_name_is_no_formula_to_a_spreadsheet(name, tmp_path):
    classes = LabelSet.of([name, "a-b=c"])
    path = seg(np.array([[0, 0, 1]], np.uint8), classes).save(tmp_path / "areas.csv")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [
        {"\t": r"\t=1", "\r": r"\r=1\n"}.get(name[0], "'" + name),
        "a-b=c",
    ]
    assert [row["pixels"] for row in rows] == ["2", "1"]


def test_an_id_of_no_class_is_named():
    labels = np.array([[3, 9, 9]], np.uint8)
    for call in (present, to_coco, to_geojson, areas_csv):
        with pytest.raises(InputError, match="holds id 9 at 2 pixels, which is no class"):
            call(labels, SMALL)


def test_the_table_of_areas(tmp_path):
    labels = np.array([[7, 7, 7, 20], [7, 7, 0, 0]], np.uint8)
    plain = seg(labels, SMALL).save(tmp_path / "x.csv").read_text()
    assert plain == (
        "class,id,pixels,percent,square_metres\n"
        "house,7,5,62.5,unknown\ntree,20,1,12.5,unknown\n(ignored),0,2,25,unknown\n"
    )
    pytest.importorskip("rasterio")
    rows = csv.DictReader(seg(labels, SMALL, UTM).save(tmp_path / "y.csv").read_text().splitlines())
    assert [float(row["square_metres"]) for row in rows] == [1.25, 0.25, 0.5]


def test_square_metres_are_told_where_the_map_tells_them():
    pytest.importorskip("rasterio")

    def metres(crs):
        return square_metres_per_pixel(Georeference(crs, (2, 0, 0, 0, -3, 0)))

    assert metres("EPSG:32633") == 6
    assert metres("EPSG:2263") == pytest.approx(6 * (1200 / 3937) ** 2)  # feet of the US survey
    assert metres("EPSG:4326") is metres("EPSG:3857") is metres(None) is square_metres_per_pixel(None) is None


def test_the_page_of_formats_lists_them_all():
    page = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `(\.[\w.-]+)` \|", page, re.MULTILINE))
    assert rows == {name: format.ending for name, format in FORMATS.items()}


# ------------------------------------------------------------------------------------------------ extras


@pytest.mark.parametrize("name", ["x.tif", "x.csv", "x.geojson"])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setitem(sys.modules, "rasterio.crs", None)
    with pytest.raises(MissingExtraError, match=r"pixelwise\[raster\]"):
        seg(RING, LabelSet.of(["a", "b", "c"]), UTM).save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(MissingExtraError, match=r"simplifying polygons.*pixelwise\[raster\]"):
        seg(RING, LabelSet.of(["a", "b", "c"])).polygons(simplify_px=1)


def test_pictures_tables_and_run_lengths_load_neither_numba_nor_gdal(tmp_path):
    code = (
        "import sys, numpy as np; from pixelwise import LabelSet, Segmentation\n"
        "s = Segmentation(np.zeros((4, 4), np.uint8), LabelSet.of(['a', 'b']), np.zeros((4, 4, 3), np.uint8))\n"
        "for format in ('labels', 'overlay', 'side-by-side', 'contours', 'legend', 'csv', 'json', 'coco'):\n"
        "    s.save(sys.argv[1], format=format)\n"
        "print([m for m in ('numba', 'rasterio', 'shapely', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x.png")], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
