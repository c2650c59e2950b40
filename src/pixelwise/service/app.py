"""The application: one function that makes it of loaded models.

A request passes the guard (`guard`), gets a place at the desk (`desk`) or is refused, is read (`uploads`), segmented by
the same `Segmenter` as everywhere, and answered (`answers`).
"""

from __future__ import annotations

import base64
import copy
import ctypes
import hashlib
import io
import re
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

import anyio
import numpy as np
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

import pixelwise
from pixelwise import images, sources
from pixelwise.errors import ImageKindError, ImageSizeError, InputError, PixelwiseError, UnknownNameError
from pixelwise.inference.options import TILE_PX, SegmentOptions
from pixelwise.inference.plan import BYTES_A_PIXEL
from pixelwise.labels import LabelSet
from pixelwise.limits import free_memory
from pixelwise.outputs.formats import FORMATS
from pixelwise.pipeline.pictures import Room
from pixelwise.segmenter import Segmenter
from pixelwise.service.answers import (
    FAILED,
    TYPES,
    Wanted,
    archive,
    by_accept,
    by_name,
    disposition,
    stems,
    type_of,
)  # fmt: skip
from pixelwise.service.desk import Desk, Place, Stoppable
from pixelwise.service.guard import GONE, Guard
from pixelwise.service.limits import DEFAULTS, Limits
from pixelwise.service.metrics import TYPE, Metrics
from pixelwise.service.notes import collected
from pixelwise.service.refusals import STATUSES, Refused, refusal
from pixelwise.service.schemas import Failure, Labels, Model, Models, Status, classes_of
from pixelwise.service.uploads import CURL, Upload, check_head, check_kind, read_uploads
from pixelwise.terminal import printable

HERE = Path(__file__).parent

STEP = 2**18
"""Bytes of an answer that are handed to the server at a time, so that no second copy of it waits for a slow reader."""

MAX_CRF_PIXELS = 4_000_000
"""Of a picture that the CRF refines here: seconds a megapixel, in which nothing can stop it."""


LARGE = 4_000_000
"""Pixels of a picture after which memory is given back."""

MAX_SLOW_PIXELS = 1_000_000
"""Of a picture that Pillow decodes in Python: up to four seconds a megapixel, in which nothing can stop it."""

OUTLINES = ("geojson", "coco-polygons")

MAX_OUTLINE_PX = 500_000
"""How long the borders between regions may be that are answered as outlines: of a million pixels of noise they are two
million long, and take 20 seconds and more than a gigabyte."""


def create_app(
    segmenters: Segmenter | Mapping[str, Segmenter],
    limits: Limits = DEFAULTS,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """A FastAPI application that segments pictures with these models; the first is the default.

    segmenters: one, or several by the names that requests use. token: what requests must bear (Authorization: Bearer),
    None for none. hosts: names by which the service may be called, against pages whose own name leads to this machine;
    None for any. Requests wait for `limits.at_once` threads; `docs/service.md` says what is answered and refused.

    Raises InputError where there is no model, or the token is empty.
    """
    models = dict(segmenters) if isinstance(segmenters, Mapping) else {segmenters.card.name: segmenters}
    if not models:
        raise InputError("a service needs at least one model, got none")
    if token is not None and not token.strip():
        raise InputError("a token has at least one letter, got an empty one; None asks for none")
    desk = Desk(limits)
    worker = Worker(limits)
    metrics = Metrics(desk)
    default = next(iter(models))
    for name, segmenter in models.items():
        segmenter.card.refuse_volumes("the service")
        models[name] = _shared(segmenter, limits.at_once, lambda: desk.accepted < 2)
    page = (HERE / "page.html").read_text(encoding="utf-8")
    samples = {path.name: path.read_bytes() for path in sorted((HERE / "samples").glob("*.jpg"))}

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        desk.open()
        yield
        desk.close()

    app = FastAPI(
        title="pixelwise", version=pixelwise.__version__, docs_url=None, redoc_url=None, lifespan=life,
        redirect_slashes=False, summary="Semantic segmentation: a class for every pixel.",
    )  # fmt: skip
    app.add_middleware(Guard, metrics=metrics, shown=_shown, token=token, hosts=hosts, policy=policy(page))
    for kind in (Refused, PixelwiseError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _refuse)

    def model_named(name: str | None) -> str:
        if name is not None and name not in models:
            raise UnknownNameError("model", name, models)
        return default if name is None else name

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/samples/{name}", include_in_schema=False)
    async def sample(name: str) -> Response:
        if name not in samples:
            raise HTTPException(404)
        return Response(samples[name], media_type="image/jpeg")

    @app.get("/models", responses=_may(401))
    async def list_models() -> Models:
        """The models that are loaded, with their classes."""
        rows = [Model.of(name, segmenter) for name, segmenter in models.items()]
        return Models(default=default, max_bytes=limits.max_bytes, models=rows)

    @app.get("/labels", responses=_may(401, 422), dependencies=[Depends(_known_parameters)])
    async def list_labels(
        model: Annotated[str | None, Query(description="Of this model; default: the first.")] = None,
    ) -> Labels:
        """The classes of a model."""
        name = model_named(model)
        segmenter = models[name]
        return Labels(model=name, classes=classes_of(segmenter), ignore_id=segmenter.classes.ignore_id)

    @app.get("/health")
    async def health() -> Status:
        """Answers as long as the process lives."""
        return Status(status="ok")

    @app.get("/ready", responses=_may(503))
    async def ready() -> Status:
        """Whether a picture would be taken now."""
        desk.check_open()
        if desk.full:
            raise Refused(503, "busy", "as many requests wait as may; try again in a moment")
        return Status(status="ready")

    @app.get(
        "/metrics", response_class=Response, responses={**_may(401), 200: {"content": {"text/plain": {}}}}
    )
    async def show_metrics() -> Response:
        """What Prometheus reads."""
        return Response(metrics.text(), headers={"Content-Type": TYPE})

    @app.post(
        "/segment",
        response_class=Response,
        responses={**_may(*STATUSES), 200: ANSWER, 422: ALL_FAILED},
        openapi_extra={"requestBody": BODY},
        dependencies=[Depends(_known_parameters)],
    )
    async def segment(request: Request, asked: Annotated[Asked, Depends(_asked)]) -> Response:
        """Segment a picture, or several.

        The body is a picture's file, or a form (multipart/form-data) with one or more parts named `picture`. One
        picture in one format is answered with that file, as `pixelwise segment` writes it; anything else with a zip
        archive, in which a picture that failed has an entry `NAME.error.json`. Where all failed it comes as 422.
        """
        about = request.state.about
        name = model_named(asked.model)
        asked = asked.of(models[name].classes)
        wanted, zipped = asked.wanted(request.headers.get("accept", ""))
        about.update(model=name, formats=[one.format for one in wanted])
        check_head(request, limits)
        place = desk.accept()
        try:
            pictures = await read_uploads(request, limits)
            about["pictures"] = sizes = []
            done: list[Done | Refused] = []
            left = limits.max_pixels
            for picture in pictures:
                work = partial(worker.segment, models[name], picture, asked, wanted, left)
                one = await place.do(request, work)
                if isinstance(one, Refused):
                    if len(pictures) == 1 or one.status in (501, 503):
                        place.leave()
                        return _answered(request, one, picture.kind)
                    done.append(one)
                    continue
                height, width = one.size_hw
                left -= height * width
                sizes.append([height, width])
                metrics.pictures.inc()
                metrics.pixels.inc(height * width)
                done.append(one)
            names = stems((picture.name for picture in pictures), (one.ending for one in wanted))
            content, headers = _answer(names, done, wanted, zipped, request.state.request_id)
            headers["X-Pixelwise-Model"] = quote(name)
            if said := dict.fromkeys(note for one in done if isinstance(one, Done) for note in one.notes):
                headers["X-Pixelwise-Note"] = printable("; ".join(said)).encode("ascii", "replace").decode()
            status = 422 if all(isinstance(one, Refused) for one in done) else 200
            return Held(status, content, headers, place, limits.timeout_s)
        except ClientDisconnect:
            place.leave()
            about["status"] = GONE
            return Response(status_code=400)  # which nobody reads
        except BaseException:
            place.leave()
            raise

    return app


def _shared(segmenter: Segmenter, threads: int, is_alone: Callable[[], bool]) -> Segmenter:
    """The same model, for several threads at a time, and for people who may go."""
    from pixelwise.engines.onnxruntime import OnnxRuntimeEngine

    if threads > 1 and isinstance(segmenter.engine, OnnxRuntimeEngine):
        segmenter.engine.share(threads, is_alone)
    ours = copy.copy(segmenter)
    ours.engine = Stoppable(segmenter.engine)
    return ours


# What is asked for --------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """The parameters of a request."""

    model: str | None
    formats: str | None
    names: tuple[str, ...]
    simplify_px: float
    options: SegmentOptions

    def of(self, classes: LabelSet) -> Asked:
        """The same with these classes by their names: a value that is none may be several, comma separated.
        UnknownNameError for what is none of them."""

        def named(values: tuple[str, ...]) -> tuple[str, ...]:
            parts = ((value,) if value in classes.names else _split(value) for value in values)
            found = tuple(dict.fromkeys(name for part in parts for name in part))
            for name in found:
                classes.index(name)
            return found

        options = self.options
        options = replace(
            options, fill_holes=named(options.fill_holes), largest_only=named(options.largest_only)
        )
        return self._replace(names=named(self.names), options=options)

    def wanted(self, accept: str) -> tuple[list[Wanted], bool]:
        """The files of each picture, and whether in an archive even if it is one."""
        if self.formats is None:
            one, zipped = by_accept(accept)
            wanted = [one]
        else:
            wanted, zipped = by_name(self.formats), False
        for option, given in (("names", self.names), ("simplify_px", self.simplify_px)):
            owner = next(name for name, one in FORMATS.items() if one.option == option)
            if given and owner not in (one.format for one in wanted):
                got = ", ".join(one.format for one in wanted)
                raise InputError(f"{option} is for format {owner!r}, got format {got!r}")
        return wanted, zipped


Text = str | None

CLASSES = ("names", "fill_holes", "largest_only")
LISTS = ("format", "flip")
"""Parameters that take several values: the former may be repeated, the latter not."""

EACH = "Comma separated, or the parameter once for each, as a name with a comma in it needs."


def _several(names: Iterable[str]) -> dict[str, Any]:
    """Says in the OpenAPI which names a parameter takes, comma separated; what is refused is refused in our words."""
    one = f"({'|'.join(names)})"
    return {"pattern": f"^{one}(,{one})*$"}


def _asked(
    model: Annotated[Text, Query(description="One of /models; default: the first.")] = None,
    format: Annotated[
        Text,
        Query(
            description=f"What to answer, comma separated: {', '.join(FORMATS)}. Default: what Accept asks for, else "
            "labels.",
            examples=["labels", "ids,confidence,json"],
            json_schema_extra=_several(FORMATS),
        ),
    ] = None,
    names: Annotated[
        list[str],
        Query(description=f"Classes that a cutout keeps. {EACH}", examples=[["cat,dog"], ["cat", "dog"]]),
    ] = [],  # noqa: B006  # FastAPI copies it
    simplify_px: Annotated[
        float,
        Query(
            ge=0,
            le=1000,
            allow_inf_nan=False,
            description="Of geojson: 0 is exact, more makes slopes of stairs.",
        ),
    ] = 0,
    tile: Annotated[
        int | None,
        Query(
            ge=64,
            le=8192,
            description="Cut into tiles of so many pixels. Default: as the model has it, and in tiles of "
            f"{TILE_PX} what takes too much memory.",
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        Query(
            ge=0, le=4096, allow_inf_nan=False, description="Of tiles: whole pixels, or a share up to 0.5."
        ),
    ] = None,
    flip: Annotated[
        Text,
        Query(
            description="Average with the mirrored picture: horizontal, vertical, or both with a comma.",
            json_schema_extra=_several(("horizontal", "vertical")),
        ),
    ] = None,
    crf: Annotated[
        Literal["off", "vgg", "resnet"],
        Query(description=f"Refine borders with a dense CRF, of pictures up to {MAX_CRF_PIXELS:,} pixels."),
    ] = "off",
    min_confidence: Annotated[
        float, Query(ge=0, le=1, description="Ignore pixels whose class is less probable than this.")
    ] = 0,
    min_area: Annotated[
        int, Query(ge=0, le=10**9, description="Give regions of fewer pixels than this to a neighbour.")
    ] = 0,
    fill_holes: Annotated[list[str], Query(description=f"Fill holes in these classes. {EACH}")] = [],  # noqa: B006
    largest_only: Annotated[
        list[str], Query(description=f"Keep only the largest region of these classes. {EACH}")
    ] = [],  # noqa: B006
) -> Asked:
    """The parameters in our words."""
    if overlap is not None and tile is None:
        raise InputError(f"overlap is of tiles; ask for them as well, such as tile={TILE_PX}")
    if overlap is not None and overlap >= 1 and overlap % 1:
        raise InputError(f"overlap is a whole number of pixels, or a share up to 0.5, got {overlap:g}")
    shared = None if overlap is None else int(overlap) if overlap >= 1 else overlap
    if shared is not None and tile is not None and shared > (0.5 if isinstance(shared, float) else tile // 2):
        raise InputError(f"overlap is at most half of a tile, got {overlap:g}")
    options = SegmentOptions(
        tile=tile, overlap=shared, flips=_split(flip), crf=None if crf == "off" else crf,  # type: ignore[arg-type]
        min_confidence=min_confidence, min_area=min_area, fill_holes=tuple(fill_holes),
        largest_only=tuple(largest_only),
    )  # fmt: skip
    return Asked(model, format, tuple(names), simplify_px, options)


def _split(text: str | None) -> tuple[str, ...]:
    """What stands between the commas, each once."""
    return tuple(dict.fromkeys(name for part in (text or "").split(",") if (name := part.strip())))


async def _known_parameters(request: Request) -> None:
    """Raise for a parameter that the address does not have, for one that is given twice, and for what only the command
    takes."""
    route = request.scope["route"].dependant
    known = [one.alias for part in (route, *route.dependencies) for one in part.query_params]
    seen = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise UnknownNameError("parameter", name, known)
        if name in seen and name not in CLASSES:
            how = "join its values with commas" if name in LISTS else "give it once"
            raise InputError(f"parameter {name} is given twice; {how}")
        if (name, value) == ("tile", "auto"):
            raise InputError(
                "tile takes a number of pixels here, and what takes too much memory is tiled also without it, got auto"
            )
        seen.add(name)


# What is done -------------------------------------------------------------------------------------------------------


class Done(NamedTuple):
    """A picture that was segmented. size_hw: as it declares it. files: by the ending of their names. notes: what its
    sender should know."""

    size_hw: tuple[int, int]
    files: dict[str, bytes]
    notes: list[str]


class Worker:
    """What a thread does with a picture."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        memory = free_memory() // 2 if limits.max_memory is None else limits.max_memory
        self._memory = memory // limits.at_once
        self._room = Room(limits.max_pixels)

    def segment(
        self, segmenter: Segmenter, picture: Upload, asked: Asked, wanted: list[Wanted], max_pixels: int
    ) -> Done:
        """The files of a picture. max_pixels: how many are left to it of the request's."""
        check_kind(picture.kind)
        most = self._limits.max_pixels
        try:
            size_hw = images.declared_size(picture.content, max_pixels=most, max_slow_pixels=MAX_SLOW_PIXELS)
        except ImageSizeError as error:  # its limit is not the sender's to raise
            raise ImageSizeError(str(error).replace(images.RAISE_IT, "send a smaller one")) from None
        pixels = size_hw[0] * size_hw[1]
        if pixels > max_pixels:
            raise ImageSizeError(
                f"the pictures of a request have at most {most:,} pixels together; send this one by itself"
            )
        if sources.is_raster_tiff(io.BytesIO(picture.content), max_pixels=most):
            raise ImageKindError(
                "the picture is a raster, a TIFF that lies somewhere on Earth or has more than four bands; `pixelwise "
                "segment` takes it, and keeps its place"
            )
        options = self._fitted(segmenter, asked.options, size_hw)
        with self._room.held(pixels), collected() as said:  # together no more than the largest picture
            try:
                files = self._files(segmenter, picture, options, asked, wanted)
            except Exception as error:
                cause: BaseException | None = error
                while cause is not None:  # whose frames hold what there is of the picture
                    traceback.clear_frames(cause.__traceback__)
                    cause = cause.__cause__ or cause.__context__
                raise
            finally:
                if pixels >= LARGE:
                    _give_back()
        if options != asked.options:
            said.append(
                f"the network was shown tiles of {TILE_PX} pixels, as the whole would take too much memory"
            )
        return Done(size_hw, files, said)

    def _files(
        self,
        segmenter: Segmenter,
        picture: Upload,
        options: SegmentOptions,
        asked: Asked,
        wanted: list[Wanted],
    ) -> dict[str, bytes]:
        found = segmenter.segment(
            picture.content,
            options,
            confidence=any(one.format == "confidence" for one in wanted),
            max_pixels=self._limits.max_pixels,
        )
        if any(one.format in OUTLINES for one in wanted):
            _check_outlines(found.labels if found.codes is None else found.codes)
        files = {}
        for format, ending in wanted:
            given = {"names": asked.names, "simplify_px": asked.simplify_px}
            more: dict[str, Any] = {k: v for k, v in given.items() if k == FORMATS[format].option}
            files[ending] = found.to_bytes(format, ending=ending, **more)
        return files

    def _fitted(
        self, segmenter: Segmenter, options: SegmentOptions, size_hw: tuple[int, int]
    ) -> SegmentOptions:
        """The same, in tiles where the network would take more memory than it may."""
        if options.crf is not None and size_hw[0] * size_hw[1] > MAX_CRF_PIXELS:
            raise ImageSizeError(
                f"the CRF takes pictures of at most {MAX_CRF_PIXELS:,} pixels here, got {size_hw[0]} x {size_hw[1]}; "
                "leave it out, or use `pixelwise segment`"
            )
        if options.tile is not None:
            shown = (int(options.tile), int(options.tile))  # type: ignore[arg-type]  # a number, here
        else:
            shown = segmenter.card.preprocess.size_hw(*size_hw)
        if shown[0] * shown[1] * BYTES_A_PIXEL <= self._memory:
            return options
        if options.tile is not None or segmenter.card.baked:
            raise ImageSizeError(
                f"a network that is shown {shown[0]} x {shown[1]} pixels at once takes more memory than this service "
                f"gives it; send {'a smaller tile' if options.tile is not None else 'a smaller picture'}"
            )
        return replace(options, tile=TILE_PX)


def _check_outlines(regions: NDArray[Any]) -> None:
    """Raise ImageSizeError where the borders in a map (h, w) are too long to be outlined."""
    length = sum(
        np.count_nonzero(a != b) for a, b in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1]))
    )
    if length > MAX_OUTLINE_PX:
        raise ImageSizeError(
            f"the borders between regions are {length:,} pixels long, and at most {MAX_OUTLINE_PX:,} are outlined "
            "here; give small regions to their neighbours (min_area), or ask for a label map"
        )


def _give_back() -> None:
    """Have the system get back what a large picture took: glibc keeps it for the thread that had it."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


# What is answered ---------------------------------------------------------------------------------------------------


def _answer(
    names: list[str], done: list[Done | Refused], wanted: list[Wanted], zipped: bool, request_id: str
) -> tuple[bytes, dict[str, str]]:
    """The body and its headers."""
    if len(done) == 1 and len(wanted) == 1 and not zipped:
        (one,), ((_, ending),) = done, wanted
        assert isinstance(one, Done)
        name, kind = f"{names[0]}{ending}", type_of(ending)
        return one.files[ending], {"Content-Disposition": disposition(name), "Content-Type": kind}
    files, failed = [], 0
    for stem, one in zip(names, done, strict=True):
        if isinstance(one, Refused):
            failed += 1
            files.append((f"{stem}{FAILED}", bytes(JSONResponse(one.body(request_id)).body)))
        else:
            files += [(f"{stem}{ending}", content) for ending, content in one.files.items()]
    name = f"{names[0] if len(names) == 1 else 'pictures'}.zip"
    headers = {"Content-Disposition": disposition(name), "Content-Type": TYPES[".zip"]}
    return archive(files), headers | ({"X-Pixelwise-Failed": str(failed)} if failed else {})


class Held(Response):
    """An answer whose place is free when it was sent; who does not read it in time gets no more of it."""

    def __init__(
        self, status: int, content: bytes, headers: dict[str, str], place: Place, seconds: float
    ) -> None:
        super().__init__(content, status, headers)
        self._place, self._seconds = place, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = memoryview(self.body)
        try:
            with anyio.fail_after(self._seconds):
                head = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **head})
                for start in range(0, len(body), STEP):
                    part = bytes(body[start : start + STEP])
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:  # the server closes the connection, which says that the answer is not whole
            scope["state"]["about"].update(status=GONE, error="not_read")
        finally:
            self._place.leave()


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer to what is raised further in."""
    if isinstance(error, RequestValidationError):
        error = Refused(422, "invalid", _sentence(error))
    elif isinstance(error, HTTPException):
        error = _http(request, error)
    return _answered(request, refusal(error))


def _answered(request: Request, refused: Refused, kind: str = "") -> Response:
    """The answer that is a refusal. kind: the type that was declared of a picture."""
    if kind == CURL and refused.code in ("not_a_picture", "bad_picture"):
        advice = "curl sends a file as it is with --data-binary @FILE, and not with -d"
        refused = Refused(refused.status, refused.code, f"{refused.sentence}; {advice}")
    request.state.about["error"] = refused.code
    return refused.response(request.state.request_id)


def _sentence(error: RequestValidationError) -> str:
    """The first thing that is wrong with the parameters, in one sentence."""
    first = error.errors()[0]
    says = str(first["msg"])
    return f"{first['loc'][-1]}: {says[:1].lower()}{says[1:]}, got {first.get('input')!r:.80}"


def _http(request: Request, error: HTTPException) -> Refused:
    if error.status_code == 404:
        return Refused(404, "not_found", f"there is no such address; there are {', '.join(PATHS)}")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return Refused(
            405, "wrong_method", f"this address takes {allowed or 'another method'}", Allow=allowed
        )
    return Refused(error.status_code, "bad_request", str(error.detail))


PATHS = ("/", "/segment", "/models", "/labels", "/health", "/ready", "/metrics", "/openapi.json")


def _shown(path: str) -> str:
    """An address as logs and metrics have it."""
    return "/samples" if path.startswith("/samples/") else path if path in PATHS else "other"


def policy(page: str) -> str:
    """What the page may do: run the scripts and styles that it holds, talk to this service, show what it made."""

    def inside(tag: str) -> str:
        found = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page, re.DOTALL)
        hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in found)
        return " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"

    return (
        f"default-src 'none'; script-src {inside('script')}; style-src {inside('style')}; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self' blob:; worker-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


# What its OpenAPI says ----------------------------------------------------------------------------------------------


def _may(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of an address."""
    return {status: {"model": Failure, "description": STATUSES[status]} for status in statuses}


_FILE = {"schema": {"type": "string", "format": "binary"}}

ANSWER: dict[str, Any] = {
    "description": "The file of one picture in one format; otherwise a zip archive.",
    "content": {
        "image/png": _FILE,
        "image/jpeg": _FILE,
        "image/tiff": _FILE,
        "application/octet-stream": _FILE,
        "application/zip": _FILE,
        "text/csv": {"schema": {"type": "string"}},
        "application/geo+json": {"schema": {"type": "object"}},
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "height": 375,
                "width": 500,
                "classes": [
                    {"id": 8, "name": "cat", "color": [64, 0, 0], "pixels": 163125, "share": 0.87},
                    {"id": 0, "name": "background", "color": [0, 0, 0], "pixels": 24375, "share": 0.13},
                ],
                "engine": "onnxruntime",
                "precision": "float32",
            },
        },
    },
    "headers": {
        "X-Request-ID": {"schema": {"type": "string"}, "description": "Also in the log."},
        "X-Pixelwise-Model": {
            "schema": {"type": "string"},
            "description": "The model that answered, percent-encoded but for ASCII letters, digits and _.-~/",
        },
        "X-Pixelwise-Note": {
            "schema": {"type": "string"},
            "description": "What the sender should know, such as that only the first page was used.",
        },
        "X-Pixelwise-Failed": {
            "schema": {"type": "integer"},
            "description": "Of several pictures, how many failed.",
        },
    },
}

ALL_FAILED: dict[str, Any] = {
    **_may(422)[422],
    "description": f"{STATUSES[422]} Of several pictures none: the archive says why of each.",
    "content": {"application/zip": _FILE},
}

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": _FILE,
        "application/octet-stream": _FILE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["picture"],
                "properties": {
                    "picture": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                    }
                },
            }
        },
    },
}
