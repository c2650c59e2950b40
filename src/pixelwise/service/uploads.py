"""Uploads: the pictures of a request, read into memory and counted while they come; nothing is written to disk."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

import anyio
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pixelwise.service.limits import Limits
from pixelwise.service.refusals import Refused

PART = "picture"
"""The name of the parts of a form that are pictures."""

CURL = "application/x-www-form-urlencoded"

RAW = ("", "application/octet-stream", CURL)
"""Types besides those of pictures whose content is looked at: none, none in particular, and the one that curl names
where nobody said any."""


CHARSET = re.compile(r""";\s*charset[^=;]*=\s*("[^"]*"|[^;]*)""", re.IGNORECASE)


class Upload(NamedTuple):
    """name: as the sender has it. kind: the type as the sender declares it."""

    name: str
    kind: str
    content: bytes


class _InMemory(MultiPartParser):
    """Whose parts stay in memory, and which knows whether it has seen the end of the form."""

    spool_max_size = 2**62
    ended = False

    def on_end(self) -> None:
        self.ended = True


def check_head(request: Request, limits: Limits) -> None:
    """Raise Refused for what is wrong before the body is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_bytes:
        raise _too_many(int(declared[:20]), limits)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(
            415,
            "encoded",
            "bodies are taken as they are, without Content-Encoding; send the picture's file itself",
        )
    if _kind(request) != "multipart/form-data":
        check_kind(_kind(request))


def check_kind(kind: str) -> None:
    """Raise Refused for a declared type that is none of a picture."""
    if kind not in RAW and not kind.startswith("image/"):
        raise Refused(
            415,
            "not_a_picture",
            f"expected a picture (Content-Type image/... or application/octet-stream) or a form with parts named "
            f"{PART!r} (multipart/form-data), got {kind[:80]!r}",
        )


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The pictures of a request, at least one. Raises Refused, and ClientDisconnect where the other side goes."""
    try:
        with anyio.fail_after(limits.body_timeout_s):
            if _kind(request) == "multipart/form-data":
                return await _form(request, limits)
            kind = _kind(request)
            content = b"".join([chunk async for chunk in _counted(request, limits)])
            return [Upload(PART, kind, content)]
    except TimeoutError:
        raise Refused(
            408, "too_slow", f"the body did not arrive within {limits.body_timeout_s:g} seconds; try again"
        ) from None


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _counted(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        request.state.about["received_bytes"] = size
        if size > limits.max_bytes:
            raise _too_many(size, limits)
        yield chunk


async def _form(request: Request, limits: Limits) -> list[Upload]:
    # Names are in UTF-8 whatever the sender says, who could have any codec of Python tried
    declared = CHARSET.sub("", request.headers["content-type"])
    parser = _InMemory(
        Headers({"content-type": declared}),
        _counted(request, limits),
        max_files=limits.max_pictures,
        max_fields=limits.max_pictures,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refused(
                413,
                "too_many",
                f"a request holds at most {limits.max_pictures} pictures; send the others in another",
            ) from None
        raise Refused(
            400,
            "bad_form",
            f"the form cannot be read ({error.message.rstrip('.')}); send multipart/form-data",
        ) from None
    try:
        if not parser.ended:
            raise Refused(400, "bad_form", "the form is cut short; send it again, to its last boundary")
        found = [await _upload(name, part) for name, part in form.multi_items()]
    finally:
        await form.close()
    if not found:
        raise Refused(422, "bad_form", f"the form holds no picture; send it in a part named {PART!r}")
    return found


async def _upload(name: str, part: UploadFile | str) -> Upload:
    if name != PART or not isinstance(part, UploadFile):
        raise Refused(
            422,
            "bad_form",
            f"a form holds files in parts named {PART!r}, as curl -F {PART}=@photo.jpg sends them, got "
            f"{'a value' if name == PART else 'another name'}",
        )
    kind = (part.content_type or "").partition(";")[0].strip().lower()
    return Upload(part.filename or PART, kind, await part.read())


def _too_many(size: int, limits: Limits) -> Refused:
    return Refused(
        413,
        "too_large",
        f"a request has at most {limits.max_bytes:,} bytes, got {size:,} or more; send fewer or smaller pictures",
    )
