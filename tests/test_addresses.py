"""One rule: what a file names elsewhere, a path or an address, is not opened unless that is asked for."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelwise.datasets.opening import open_data
from pixelwise.errors import InputError, PixelwiseError, WeightsError
from pixelwise.outputs.reading import read_labels
from pixelwise.sources.raster import open_raster
from pixelwise.sources.video import Video
from test_sources import write_tiff
from tiny import CARD, write_colors_model

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(sys.argv[1], "a") as log:
            log.write(self.path + "\\n")
        self.send_error(404)
    do_HEAD = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""A process of its own: GDAL holds Python's lock while it fetches."""


class Server:
    """url: another one in each test, because GDAL remembers what it was refused."""

    def __init__(self, log: Path, port: int) -> None:
        self.log, self.port, self.url = log, port, ""

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(log)], stdout=subprocess.PIPE, text=True, cwd=log.parent
    )
    yield Server(log, int(process.stdout.readline()))
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def server(running: Server) -> Server:
    running.log.write_text("")
    running.url = f"http://127.0.0.1:{running.port}/{next(NUMBERS)}"
    return running


NUMBERS = itertools.count()


# Rasters --------------------------------------------------------------------------------------------------------

BANDS = np.full((32, 32, 3), 7, np.uint8)


def vrt(source: object) -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="0">{source}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="32" rasterYSize="32">{bands}</VRTDataset>'


def tiff_that_names(path: Path, overviews: str, key: str = "OVERVIEW_FILE") -> Path:
    rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    write_tiff(path, BANDS)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", **{key: overviews})
    return path


def beside(path: Path, ending: str, text: str) -> Path:
    path.with_name(path.name + ending).write_text(text)
    return write_tiff(path, BANDS)


def zipped(path: Path, content: bytes) -> Path:
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.vrt", content)
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}.png</ServerUrl></Service><DataWindow><SizeX>32</SizeX>'
    "<SizeY>32</SizeY><UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>9"
    "</LowerRightY><TileLevel>0</TileLevel></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
)
PAM = '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{0}</MDI></Metadata></PAMDataset>'

RASTERS: dict[str, Callable[[Path, str], Path]] = {
    "vrt of an address": lambda d, url: written(d / "a.vrt", vrt(f"/vsicurl/{url}/a.tif")),
    "vrt under another suffix": lambda d, url: written(d / "a.tif", vrt(f"/vsicurl/{url}/a.tif")),
    "vrt after white space": lambda d, url: written(d / "a.img", "\n " + vrt(f"/vsicurl/{url}/a.tif")),
    "vrt of another file": lambda d, url: written(d / "a.vrt", vrt(write_tiff(d / "other.tif", BANDS))),
    "vrt in a zip": lambda d, url: zipped(d / "a.tif", vrt(f"/vsicurl/{url}/a.tif").encode()),
    "map service": lambda d, url: written(d / "a.tif", WMS.format(url=url)),
    "address as text": lambda d, url: written(d / "a.dem", f"/vsicurl/{url}/a.tif"),
    "overviews beside": lambda d, url: beside(d / "a.tif", ".ovr", vrt(f"/vsicurl/{url}/a.tif")),
    "overviews in capitals": lambda d, url: beside(d / "a.tif", ".OVR", vrt(f"/vsicurl/{url}/a.tif")),
    "mask beside": lambda d, url: beside(d / "a.tif", ".msk", vrt(f"/vsicurl/{url}/a.tif")),
    "aux.xml": lambda d, url: beside(d / "a.tif", ".aux.xml", PAM.format(f"/vsicurl/{url}/a.tif")),
    "tag": lambda d, url: tiff_that_names(d / "a.tif", f"/vsicurl/{url}/a.tif"),
    "tag in small letters": lambda d, url: tiff_that_names(
        d / "a.tif", f"/vsicurl/{url}/a.tif", "overview_file"
    ),
    "aux.xml in other letters": lambda d, url: beside(
        d / "a.tif", ".aux.xml", PAM.replace("OVERVIEW_FILE", "Overview_File").format(f"/vsicurl/{url}/a.tif")
    ),
    "aux.xml, the domain in small letters": lambda d, url: beside(
        d / "a.tif", ".aux.xml", PAM.replace("OVERVIEWS", "overviews").format(f"/vsicurl/{url}/a.tif")
    ),
    "tag without vsicurl": lambda d, url: tiff_that_names(d / "a.tif", f"{url}/a.tif"),
    "tag of the overviews beside": lambda d, url: write_tiff(
        tiff_that_names(d / "a.tif.ovr", f"/vsicurl/{url}/a.tif").with_name("a.tif"), BANDS
    ),
}


@pytest.mark.parametrize("name", RASTERS)
def test_a_raster_that_names_others_is_refused_before_they_are_opened(name, server, tmp_path):
    path = RASTERS[name](tmp_path, server.url)
    with pytest.raises(PixelwiseError, match=r"not a raster|--allow-remote"):
        open_raster(path)
    if path.suffix == ".tif":
        with pytest.raises(InputError, match=r"not a raster|--allow-remote"):
            read_labels(path, CARD.labels)
    assert server.asked == []


@pytest.mark.parametrize("name", ["vrt of an address", "map service", "overviews beside", "tag"])
def test_that_is_what_gdal_does_with_them(name, server, tmp_path):
    """Else the test above would hold whatever we did. With the option it is done."""
    raster = None
    try:
        raster = open_raster(RASTERS[name](tmp_path, server.url), allow_remote=True)
        raster.read(0, 32)
        raster.rows.read([0, 1, 2], 0, 32, 4)
    except PixelwiseError:
        pass
    finally:
        if raster is not None:
            raster.close()
    assert server.asked


def test_what_is_offline_stays_so_whatever_is_allowed(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    with pytest.raises(PixelwiseError, match="PIXELWISE_OFFLINE forbids"):
        open_raster(RASTERS["vrt of an address"](tmp_path, server.url), allow_remote=True)
    assert server.asked == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe shows whether it was opened")
def test_overviews_on_this_machine_are_not_opened_either(tmp_path):
    """A pipe takes a writer who does not wait only where somebody reads it."""
    pipe = tmp_path / "elsewhere" / "ov.tif"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    path = tiff_that_names(tmp_path / "a.tif", str(pipe), "overview_file")
    code = (
        "import sys; from pathlib import Path; from pixelwise.sources.raster import open_raster\n"
        "open_raster(Path(sys.argv[1]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert "names another file for its overviews" in result.stderr


def test_a_netcdf_of_hdf5_may_have_any_file_read_and_is_refused(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(PixelwiseError, match=r"HDF5.*--allow-remote"):
        open_raster(tmp_path / "a.nc")


def test_a_folder_that_is_named_like_an_address_is_a_folder(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(server.url.replace("//", "/"))
    folder.mkdir(parents=True)
    raster = open_raster(write_tiff(tmp_path / "a.tif", BANDS).rename(folder / "a.tif").relative_to("."))
    np.testing.assert_array_equal(raster.read(0, 32)[0], BANDS)
    raster.close()
    assert server.asked == []


def test_what_lies_beside_a_raster_and_names_nothing_is_read(tmp_path):
    """A mask, overviews and a world file, which GDAL looks for."""
    rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio (pixelwise[raster])")
    path = write_tiff(tmp_path / "a.tif", np.repeat(np.repeat(BANDS, 20, 0), 20, 1), place=None)
    with warnings.catch_warnings(), rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2])
            file.write_mask(np.repeat([[0], [255]], [100, 540], axis=0) * np.ones((1, 640), np.uint8))
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n5\n5\n")
    assert {p.name for p in tmp_path.iterdir()} >= {"a.tif", "a.tif.ovr", "a.tif.msk", "a.tfw"}
    raster = open_raster(path)
    _, valid = raster.read(98, 102)
    raster.close()
    assert valid[:, 0].tolist() == [False, False, True, True]
    assert raster.rows.georeference.transform[0] == 10


def test_an_ome_tiff_is_read_for_its_own_planes_only(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="OME-TIFF needs tifffile (pixelwise[raster])")
    outside = tmp_path / "outside.tif"
    tifffile.imwrite(outside, BANDS[..., 0])
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in (str(outside), "../outside.tif"):
        data = f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:2</UUID></TiffData>'
        text = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
            '<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint8" SizeX="32" SizeY="32" SizeC="1" SizeZ="1" SizeT="1">'
            f"{data}</Pixels></Image></OME>"
        )
        tifffile.imwrite(
            inside / "a.ome.tif", np.zeros((32, 32), np.uint8), description=text, metadata=None, ome=False
        )
        with pytest.raises(PixelwiseError, match="other files"):
            open_raster(inside / "a.ome.tif")


@pytest.mark.parametrize(
    "where", ["../outside.zarr", "/absolute", "{url}/a.zarr", "simplecache::{url}/a.zarr"]
)
def test_a_zarr_group_is_read_for_its_own_arrays_only(where, server, tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr needs zarr (pixelwise[raster])")
    zarr.create_array(str(tmp_path / "outside.zarr"), data=BANDS)
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="w")
    place = where.format(url=server.url).replace("/absolute", str(tmp_path / "outside.zarr"))
    group.attrs["multiscales"] = [{"axes": [{"name": n} for n in "yxc"], "datasets": [{"path": place}]}]
    with pytest.raises(PixelwiseError, match="not a Zarr array"):
        open_raster(tmp_path / "in.zarr")
    assert server.asked == []


@pytest.mark.slow
def test_the_command_takes_a_vrt_with_the_option_it_names_only(tmp_path):
    write_tiff(tmp_path / "other.tif", BANDS)
    (tmp_path / "a.vrt").write_text(vrt(tmp_path / "other.tif"))
    model = write_colors_model(tmp_path / "colors.onnx")
    run = [sys.executable, "-m", "pixelwise", "segment", "a.vrt", "--model", str(model), "--out", "out"]
    result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--allow-remote" in result.stderr
    assert not list((tmp_path / "out").glob("**/*")) if (tmp_path / "out").exists() else True
    result = subprocess.run([*run, "--allow-remote"], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "a.labels.tif").exists()


# Videos ---------------------------------------------------------------------------------------------------------


def playlist(kind: str, source: str) -> str:
    if kind == "m3u8":
        return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{source}\n#EXT-X-ENDLIST\n"
    return f"ffconcat version 1.0\nfile '{source}'\n"


@pytest.mark.parametrize(
    ("kind", "suffix"), [("m3u8", ".m3u8"), ("m3u8", ".mp4"), ("concat", ".mp4"), ("concat", ".mkv")]
)
def test_a_playlist_is_no_video_unless_it_may_name_others(kind, suffix, server, tmp_path):
    """FFmpeg by itself takes playlists of HLS by their suffix only, and no addresses from lists to concatenate."""
    pytest.importorskip("av", reason="videos need av (pixelwise[video])")
    from test_video import moving, write_video

    path, other = tmp_path / f"a{suffix}", write_video(tmp_path / "other.ts", moving(4))

    def frames(source: str, *, allow_remote: bool) -> int:
        path.write_text(playlist(kind, source))
        with Video(path, allow_remote=allow_remote) as video:
            return sum(1 for _ in video)

    for source in (f"{server.url}/film.ts", other.name, f"{'file:' * (kind == 'm3u8')}{other}"):
        with pytest.raises(PixelwiseError, match="not a video"):
            frames(source, allow_remote=False)
    assert server.asked == []
    if suffix != ".mp4" or kind == "concat":
        assert frames(other.name, allow_remote=True) == 4
    with pytest.raises(PixelwiseError):
        frames(f"{server.url}/film.ts", allow_remote=True)
    assert bool(server.asked) == (suffix == ".m3u8")


def test_a_video_with_a_colon_in_its_name_is_a_file(server, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="videos need av (pixelwise[video])")
    from test_video import moving, write_video

    monkeypatch.chdir(tmp_path)
    for name in ("concat:b.mp4", server.url.replace("//", "/") + "/a.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "a.mp4", moving(3)).rename(name)
        with Video(Path(name)) as video:
            assert sum(1 for _ in video) == 3
    assert server.asked == []


# Data sets ------------------------------------------------------------------------------------------------------


def test_rows_of_a_data_set_that_name_an_address_or_a_file_are_not_followed(server, tmp_path):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    Image.fromarray(BANDS).save(tmp_path / "secret.png")
    places = [f"{server.url}/a.png", str(tmp_path / "secret.png"), f"zip://a.png::{server.url}/a.zip"]
    rows = [{"bytes": None, "path": place} for place in places]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    import pyarrow

    struct = datasets.Image.pa_type if hasattr(datasets.Image, "pa_type") else datasets.Image().pa_type
    table = pyarrow.table({name: pyarrow.array(rows, struct) for name in features})
    data = datasets.Dataset(table.replace_schema_metadata(None)).cast(features)
    folder = tmp_path / "hub"
    folder.mkdir()
    # As an attacker would: save_to_disk itself puts the pictures in.
    with pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
        table = data.data.table
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "a", "_format_columns": None,
             "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None}  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    info: dict[str, Any] = {"features": features.to_dict()}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "classes.txt").write_text("a\nb\n")
    samples = open_data(folder).samples("all")
    for i, place in enumerate(places):
        with pytest.raises(InputError, match="is not in the data set") as caught:
            samples[i]
        assert place in str(caught.value)
    assert server.asked == []


def test_coco_takes_pictures_from_its_folder_whatever_the_file_names(server, tmp_path):
    from pixelwise.datasets.coco import coco_pairs
    from test_layouts import photo, save

    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    save(tmp_path / "secret.jpg", photo())
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), f"{server.url}/a.jpg"]
    content = {
        "categories": [{"id": i, "name": {1: "person", 72: "tv"}.get(i, str(i))} for i in range(1, 91)],
        "annotations": [],
        "images": [
            {"id": i, "file_name": name, "coco_url": f"{server.url}/{i}.jpg", "height": 20, "width": 40}
            for i, name in enumerate(names)
        ],
    }
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    for pair in coco_pairs(tmp_path):
        assert pair.image is None
        with pytest.raises(InputError, match="lacks its picture"):
            pair.read_image()
    assert server.asked == []


@pytest.mark.parametrize("name", ["../secret", "/etc/secret", "{url}/a"])
def test_a_list_names_pictures_of_its_data_set_only(name, server, tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text(name.format(url=server.url) + "\n")
    with pytest.raises(InputError, match="expected the plain name"):
        open_data(tmp_path, layout="voc")
    assert server.asked == []


# Models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["../secret.bin", "{folder}/secret.bin", "link.bin"])
def test_an_onnx_file_keeps_its_tensors_in_its_folder(place, tmp_path):
    onnx = pytest.importorskip("onnx")
    from pixelwise.engines.onnxruntime import OnnxRuntimeEngine

    model = onnx.load(write_colors_model(tmp_path / "colors.onnx"))
    (tmp_path / "in").mkdir()
    place = place.format(folder=tmp_path)
    written_any = False
    for tensor in model.graph.initializer:
        data = onnx.numpy_helper.to_array(tensor).tobytes()
        (tmp_path / "secret.bin").write_bytes(data)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.ClearField("int64_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        written_any = True
        break
    assert written_any
    if place == "link.bin":
        os.symlink(tmp_path / "secret.bin", tmp_path / "in" / "link.bin")
    (tmp_path / "in" / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError):
        OnnxRuntimeEngine(tmp_path / "in" / "a.onnx", card=CARD)


@pytest.mark.parametrize(
    "place", ["../secret.safetensors", "{folder}/secret.safetensors", "{url}/a.safetensors"]
)
def test_the_list_of_a_checkpoint_in_parts_names_files_beside_it_only(place, server, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    import pixelwise

    save_file({"a": torch.zeros(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "in"
    folder.mkdir()
    place = place.format(folder=tmp_path, url=server.url)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))
    with pytest.raises(WeightsError, match="does not lie beside it"):
        pixelwise.from_checkpoint(folder)
    assert server.asked == []
