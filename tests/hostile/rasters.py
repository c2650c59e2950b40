"""Rasters, segmented by the command."""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hostile.cases import Case, Gives, Place, Refused, Right, colors_model, labels_of, segmented
from pixelwise.errors import ImageError, InputError

LEFT = ("out/*.labels.tif", "out/.pixelwise-journal.jsonl", "out/*.npy")


def geotiff(values: np.ndarray, **profile: Any) -> bytes:
    """A GeoTIFF of bands (c, h, w)."""
    import rasterio
    from rasterio.io import MemoryFile

    usual = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    about = {
        "driver": "GTiff",
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype.name,
        **usual,
        **profile,
    }
    about["transform"] = rasterio.Affine(*about["transform"][:6])
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore")
        with memory.open(**about) as file:
            file.write(values)
        return bytes(memory.getbuffer())


def red(size_hw: tuple[int, int] = (16, 20), dtype: str = "uint8") -> np.ndarray:
    bands = np.zeros((3, *size_hw), dtype)
    bands[0] = 255
    return bands


def directory(entries: list[tuple[int, int, int, int]], behind: bytes = b"", big: bool = False) -> bytes:
    """A TIFF of one directory: (tag, kind, count, value) each."""
    if big:
        head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(entries))
        rows = b"".join(struct.pack("<HHQQ", *entry) for entry in sorted(entries))
        return head + rows + struct.pack("<Q", 0) + behind
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries))
    return (
        head
        + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
        + struct.pack("<I", 0)
        + behind
    )


def huge(side: int = 300_000, bands: int = 3, big: bool = False, place: int = 0) -> bytes:
    """A few hundred bytes that promise side x side pixels, in tiles of which none is there."""
    tiles = (side // 512 + 1) ** 2
    return directory(
        [
            (256, 4, 1, side),
            (257, 4, 1, side),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (277, 3, 1, bands),
            (322, 4, 1, 512),
            (323, 4, 1, 512),
            (324, 4, tiles, place or 400),
            (325, 4, tiles, place or 400),
            (33550, 12, 3, 300),
        ],
        bytes(2000),
        big,
    )


def sparse(side: int = 100_000) -> Callable[[Place], None]:
    """A GeoTIFF whose tiles are not written, as GDAL makes it: one colour, and no end."""

    def make(place: Place) -> None:
        import rasterio

        colors_model(place)
        with rasterio.open(
            place.folder / "x.tif",
            "w",
            driver="GTiff",
            count=3,
            height=side,
            width=side,
            dtype="uint8",
            tiled=True,
            blockxsize=4096,
            blockysize=4096,
            SPARSE_OK="TRUE",
            compress="deflate",
            crs="EPSG:4326",
            transform=rasterio.Affine(1e-5, 0, 0, 0, -1e-5, 0),
        ):
            pass

    return make


def vrt(source: str, relative: int = 0, side: int = 20, kind: str = "SimpleSource", more: str = "") -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"{more}><{kind}><SourceFilename relativeToVRT="{relative}">'
        f"{source}</SourceFilename><SourceBand>1</SourceBand></{kind}></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">{bands}</VRTDataset>'


def ome(shape: tuple[int, ...], axes: str, text: str | None = None) -> bytes:
    """An OME-TIFF; text: in place of its XML."""
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros(shape, np.uint8), ome=True, metadata={"axes": axes})
    if text is None:
        return file.getvalue()
    data = file.getvalue()
    begin = data.index(b"<?xml")
    end = data.index(b"</OME>") + 6
    return data[:begin] + text.encode()[: end - begin].ljust(end - begin) + data[end:]


ABOUT: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [16, 20, 3],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 20, 3]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 255,
    "codecs": [{"name": "bytes"}],
    "attributes": {},
}


def zarr(**changes: Any) -> Callable[[Place], None]:
    """A Zarr array without chunks, whose metadata says otherwise than it should."""

    def make(place: Place) -> None:
        colors_model(place)
        place.write("x.zarr/zarr.json", json.dumps({**ABOUT, **changes}))

    return make


def file(name: str, make: Callable[[], bytes | str]) -> Callable[[Place], None]:
    def write(place: Place) -> None:
        colors_model(place)
        data = make()
        if isinstance(data, str):
            data = data.replace("OUTSIDE", str(place.outside)).replace("ADDRESS", place.address)
        place.write(name, data)

    return write


def beside(name: str, whole: Callable[[], bytes], other: str, content: str) -> Callable[[Place], None]:
    """A good file, and a bad one that belongs to it."""

    def make(place: Place) -> None:
        file(name, whole)(place)
        file(other, lambda: content)(place)

    return make


ALL_RED = np.ones((16, 20), np.uint8)
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>http://ADDRESS/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow>'
    "<UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>20</LowerRightX><LowerRightY>20</LowerRightY>"
    "<TileLevel>0</TileLevel><SizeX>20</SizeX><SizeY>20</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
)
PYTHON = (
    '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1" '
    'subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python'
    "</PixelFunctionLanguage><PixelFunctionCode><![CDATA[\nopen('OUTSIDE/came', 'w')\ndef f(*a, **b): pass\n]]>"
    "</PixelFunctionCode></VRTRasterBand></VRTDataset>"
)
GRID = "ncols {side}\nnrows {side}\nxllcorner 0\nyllcorner 0\ncellsize 1\nNODATA_value -9999\n1 2 3\n"


def _geotiff(name: str, right: Right, values: Callable[[], np.ndarray] = red, **profile: Any) -> Case:
    return Case(name, file("x.tif", lambda: geotiff(values(), **profile)), segmented("x.tif"), right, LEFT)


def _nan() -> np.ndarray:
    return np.full((3, 16, 20), np.nan, np.float32)


def _cases() -> Iterator[Case]:
    good = labels_of("out/x.labels.tif", ALL_RED)
    refused = Refused(r"x\.[a-z.]+", InputError)

    def one(
        name: str, source: str, make: Callable[[], bytes | str], right: Right = refused, **more: Any
    ) -> Case:
        return Case(name, file(source, make), segmented(source), right, LEFT, **more)

    # What is odd and right
    yield _geotiff("whole", good)
    yield _geotiff(
        "every pixel is missing",
        labels_of("out/x.labels.tif", ALL_RED * 255),
        nodata=255,
        values=lambda: np.full((3, 16, 20), 255, np.uint8),
    )
    yield _geotiff("one band of three equal ones", Gives(lambda a, p: None), lambda: red()[:1])
    yield _geotiff("turned and mirrored", good, transform=(-1, 3, 5, 2, 7, 9))
    yield Case(
        "a sidecar of statistics that is no XML",
        beside("x.tif", lambda: geotiff(red()), "x.tif.aux.xml", "<PAMDataset><"),
        segmented("x.tif"),
        good,
        LEFT,
    )
    # What lies or is broken
    yield _geotiff("not a number anywhere", Refused(r"x\.tif.*(no data|not a number)", ImageError), _nan)
    yield _geotiff(
        "complex values", Refused(r"x\.tif.*complex", ImageError), lambda: red().astype("complex64")
    )
    yield _geotiff("two bands", Refused(r"x\.tif has 2 bands.*--bands"), lambda: red()[:2])
    yield one(
        "cut in the middle of its pixels",
        "x.tif",
        lambda: geotiff(red((200, 200)))[:50_000],
        Refused(r"x\.tif", ImageError),
    )
    yield one(
        "cut in its directory",
        "x.tif",
        lambda: geotiff(red(), tiled=True)[:150],
        Refused(r"x\.tif", ImageError),
    )
    yield one(
        "deflate that is none",
        "x.tif",
        lambda: _damaged(geotiff(red((64, 64)), compress="deflate")),
        Refused(r"x\.tif", ImageError),
    )
    yield one("three billion pixels that are not there", "x.tif", lambda: huge(60_000), Refused(r"x\.tif"))
    yield one(
        "a BigTIFF of 2^62 bytes", "x.tif", lambda: huge(2**20, big=True, place=2**62), Refused(r"x\.tif")
    )
    yield one(
        "a directory of 65535 entries",
        "x.tif",
        lambda: b"II\x2b\0\x08\0\0\0\x10" + b"\0" * 7 + b"\xff" * 8,
        Refused(r"x\.tif"),
    )
    yield Case("sparse tiles without end", sparse(), segmented("x.tif"), Refused(r"x\.tif"), LEFT, slow=True)
    yield one("bands without end", "x.tif", lambda: huge(512, bands=60_000), Refused(r"x\.tif"))
    # What has other files or addresses read
    yield one("a list that names an address", "x.vrt", lambda: vrt("/vsicurl/http://ADDRESS/x.tif"))
    yield one("a list that names another file", "x.vrt", lambda: vrt("OUTSIDE/secret.png"))
    yield one("a list of another suffix", "x.img", lambda: vrt("OUTSIDE/secret.png"))
    yield one("a list that is called a GeoTIFF", "x.tif", lambda: vrt("/vsicurl/http://ADDRESS/x.tif"))
    yield one("a list that names the folder above", "x.vrt", lambda: vrt("../outside/secret.png", 1))
    yield one("a list that names an archive", "x.vrt", lambda: vrt("/vsizip/OUTSIDE/secret.png/x.tif"))
    yield one("a list that names itself", "x.vrt", lambda: vrt("x.vrt", 1))
    yield one("a list with a program", "x.vrt", lambda: PYTHON)
    yield one(
        "a list of 131 bytes and a terabyte",
        "x.vrt",
        lambda: (
            '<VRTDataset rasterXSize="2147483647" rasterYSize="2147483647"><VRTRasterBand dataType="Byte" '
            'band="1"/></VRTDataset>'
        ),
    )
    yield one("a description of a tile server", "x.img", lambda: WMS)
    yield one("a description of a tile server called a GeoTIFF", "x.tif", lambda: WMS)
    yield one("a grid of a billion columns", "x.asc", lambda: GRID.format(side=1_000_000_000))
    yield one("a grid of words", "x.asc", lambda: GRID.format(side=3).replace("1 2 3", "a b c"))
    yield one("an archive of science that is none", "x.nc", lambda: b"\x89HDF\r\n\x1a\n" + bytes(100))
    yield one("nothing in it", "x.img", lambda: b"", Refused("empty", ImageError))
    yield Case(
        "a header that promises more than the file",
        beside(
            "x.bil", lambda: bytes(30), "x.hdr", "NROWS 60000\nNCOLS 60000\nNBANDS 3\nNBITS 8\nLAYOUT BIL\n"
        ),
        segmented("x.bil"),
        refused,
        LEFT,
    )
    # OME-TIFF and Zarr
    yield one(
        "microscopy: four axes",
        "x.ome.tif",
        lambda: ome((2, 3, 16, 20), "ZCYX"),
        Refused("more than one picture"),
    )
    yield one(
        "microscopy: no XML", "x.ome.tif", lambda: ome((3, 16, 20), "CYX", "<OME"), Gives(lambda a, p: None)
    )
    yield one(
        "microscopy: another file",
        "x.ome.tif",
        lambda: ome(
            (3, 16, 20),
            "CYX",
            (
                '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><BinaryOnly '
                'MetadataFile="../outside/secret.png" UUID="urn:uuid:1"/></OME>'
            ),
        ),
        Refused("more than one picture"),
    )
    yield one("microscopy: a side without end", "x.ome.tif", lambda: huge(200_000))
    yield one("microscopy: text", "x.ome.tif", lambda: "not a TIFF at all")
    yield Case(
        "chunks that are not there", zarr(fill_value=255), segmented("x.zarr"), Gives(lambda a, p: None), LEFT
    )
    for name, changes in {
        "a shape without end": {"shape": [10**9, 10**9, 3]},
        "chunks larger than memory": {
            "shape": [60_000, 60_000, 3],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [60_000] * 2 + [3]}},
        },
        "a negative shape": {"shape": [-1, 5, 3]},
        "no axes": {"shape": [], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}}},
        "no pixels": {"shape": [0, 20, 3]},
        "one axis": {
            "shape": [20],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [20]}},
        },
        "six axes": {
            "shape": [1, 1, 1, 16, 20, 3],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 1, 16, 20, 3]}},
        },
        "an unknown codec": {"codecs": [{"name": "rar"}]},
        "words for numbers": {"data_type": "string", "fill_value": "", "codecs": [{"name": "vlen-utf8"}]},
        "a number for a list": {"shape": 7},
    }.items():
        right = Gives(lambda a, p: None) if name == "six axes" else Refused(r"x\.zarr")
        yield Case(f"zarr: {name}", zarr(**changes), segmented("x.zarr"), right, LEFT)
    yield one("zarr: metadata that is no JSON", "x.zarr/zarr.json", lambda: "{", Refused(r"x\.zarr"))
    yield one("zarr: an empty folder", "x.zarr/readme.txt", lambda: "", Refused(r"x\.zarr"))
    yield one(
        "zarr: a group that names a path outside",
        "x.zarr/zarr.json",
        lambda: json.dumps(
            {
                "zarr_format": 3,
                "node_type": "group",
                "attributes": {
                    "ome": {
                        "multiscales": [
                            {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "../../outside"}]}
                        ]
                    }
                },
            }
        ),
        Refused(r"x\.zarr"),
    )
    yield one(
        "zarr: multiscales of another shape",
        "x.zarr/zarr.json",
        lambda: json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"multiscales": [7]}}),
        Refused(r"x\.zarr"),
    )


def _zarr_source(case: Case) -> Case:
    """Of a folder the folder is the source."""
    from dataclasses import replace

    return replace(case, do=segmented("x.zarr")) if case.name.startswith("zarr: ") else case


def _damaged(data: bytes) -> bytes:
    """With the last bytes, which are pixels, turned over."""
    return data[:-60] + bytes(255 - byte for byte in data[-60:-10]) + data[-10:]


CASES = [_zarr_source(case) for case in _cases()]
