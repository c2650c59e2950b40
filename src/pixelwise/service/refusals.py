"""What the service answers where it gives no result: one JSON object with one sentence, whatever is wrong."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from pixelwise.errors import (
    ImageError,
    ImageKindError,
    ImageSizeError,
    InputError,
    MissingExtraError,
    PixelwiseError,
)  # fmt: skip

RETRY_AFTER_S = "1"

STATUSES = {
    400: "The request is not one that this service understands.",
    401: "The service asks for a token.",
    403: "The request comes from the page of another site.",
    404: "There is no such address.",
    405: "The address takes another method.",
    406: "No format has the type that was asked for.",
    408: "The body did not arrive in time.",
    413: "The body, its pictures or their number are larger than allowed.",
    415: "It is no picture, or of a kind that is not read.",
    422: "A parameter or the picture cannot be used.",
    429: "As many requests wait as may.",
    500: "The service failed.",
    501: "The format, or the kind of picture, needs something that is not installed.",
    503: "The service ends, or the answer would have come too late.",
}
"""What `POST /segment` may refuse with, and when."""


class Refused(Exception):
    """No result, and why. code: for programs; sentence: for people."""

    def __init__(self, status: int, code: str, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence = status, code, sentence
        self.is_unforeseen = False
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if status in (429, 503):
            self.headers.setdefault("Retry-After", RETRY_AFTER_S)

    def body(self, request_id: str) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.sentence, "request_id": request_id}}

    def response(self, request_id: str) -> Response:
        return JSONResponse(self.body(request_id), self.status, self.headers)


def refusal(error: BaseException) -> Refused:
    """What an error is answered with; what nobody foresaw is named by its class alone."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MissingExtraError):
        return Refused(501, "not_installed", str(error))
    if isinstance(error, ImageKindError) and isinstance(error.__cause__, ImportError):
        return Refused(
            501,
            "not_installed",
            "the picture is HEIC, for which pillow-heif is not installed where this runs; send it as JPEG or PNG",
        )
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return Refused(
            503, "out_of_memory", "the picture needs more memory than there is; send a smaller one"
        )
    for kind, status, code in (
        (ImageSizeError, 413, "too_large"),
        (ImageKindError, 415, "not_a_picture"),
        (ImageError, 422, "bad_picture"),
        (InputError, 422, "invalid"),
    ):
        if isinstance(error, kind):
            return Refused(status, code, str(error))
    if isinstance(error, PixelwiseError):
        return Refused(500, "failed", str(error))
    refused = Refused(
        500,
        "failed",
        f"the service failed ({type(error).__name__}), which is a bug or an unforeseen case; its log says where, under "
        "this request id",
    )
    refused.is_unforeseen = True
    return refused
