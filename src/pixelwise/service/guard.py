"""What every request passes before anything looks at it, and every answer on its way out.

A request gets an id. It is refused where its host is not one of ours (a page elsewhere may have a name of its own lead
to this machine), where it lacks the token, or comes out of another site's page. An answer gets the headers that keep
browsers from doing with it what nobody meant; a line in the log and the metrics say that it was given. Whatever fails
further in is answered with one sentence.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixelwise.service.logs import log_request
from pixelwise.service.metrics import Metrics
from pixelwise.service.refusals import Refused, refusal

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

OPEN = ("/", "/samples/", "/health", "/ready")
"""Addresses that ask for no token: the page, which asks its user for it, and what watches over the service."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

DROPPED_BYTES, DROPPED_S = 64_000_000, 2.0
"""How much is read of the body of a request that was refused, so that its sender comes to reading why."""

GONE = 499
"""The status in logs and metrics where nobody was there any more to be answered."""


class Guard:
    """The outermost layer. hosts: names by which this service may be called, None for any. shown: the address of a
    request as logs and metrics say it, which is never what somebody made up."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        shown: Callable[[str], str],
        token: str | None,
        hosts: Collection[str] | None,
        policy: str,
    ) -> None:
        self._app, self._metrics, self._shown, self._hosts = app, metrics, shown, hosts
        self._token = None if token is None else token.encode()
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        about: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=request_id, about=about)
        status, sent, is_read = 0, 0, False
        # Otherwise what is left of the body would have the connection reset before the answer is read
        is_closed = "expect" not in headers and (
            scope.get("http_version") == "1.0" or "close" in headers.get("connection", "").lower()
        )
        is_head = scope["method"] == "HEAD"

        async def receiving() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and is_closed and not is_read:
                    await _drop(receiving)
                outgoing = MutableHeaders(scope=message)
                outgoing.update(self._headers)
                outgoing["X-Request-ID"] = request_id
            elif message["type"] == "http.response.body":
                if is_head:
                    message = {**message, "body": b""}
                sent += len(message.get("body", b""))
            await send(message)

        failed: Exception | None = None
        try:
            if (refused := self._refused(scope, headers)) is not None:
                about["error"] = refused.code
                await refused.response(request_id)(scope, receiving, sending)
            else:
                inner = {**scope, "method": "GET"} if is_head else scope  # the same but for the body
                await self._app(inner, receiving, sending)
        except Exception as error:
            failed = error
            answer = refusal(error)
            about["error"] = answer.code
            if status:
                raise  # the server closes the connection, which says that the answer is not whole
            await answer.response(request_id)(scope, receiving, sending)
        finally:
            path = self._shown(_path(scope))
            took = time.perf_counter() - began
            method = scope["method"] if scope["method"] in METHODS else "other"
            said = about.pop("status", status)
            self._metrics.requests.labels(path, str(said)).inc()
            self._metrics.seconds.labels(path).observe(took)
            log_request(
                logging.ERROR if failed is not None else logging.INFO,
                failed,
                id=request_id,
                method=method,
                path=path,
                status=said,
                ms=round(1000 * took, 1),
                sent_bytes=sent,
                **about,
            )

    def _refused(self, scope: Scope, headers: Headers) -> Refused | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return Refused(
                400,
                "wrong_host",
                f"this service is called by {' or '.join(sorted(self._hosts))}; use that name, or start it with --host",
            )
        path = _path(scope)
        if self._token is not None and not (path in OPEN or path.startswith("/samples/")):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                return Refused(
                    401,
                    "unauthorized",
                    "this service asks for its token, in the header Authorization: Bearer TOKEN",
                    WWW_Authenticate="Bearer",
                )
        if scope["method"] not in ("GET", "HEAD") and not _is_own(headers):
            return Refused(
                403,
                "cross_site",
                "the request comes from the page of another site, which this service does not answer",
            )
        return None


def _path(scope: Scope) -> str:
    """Of a request, below the place of the service where it is mounted in another application."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


async def _drop(receive: Receive) -> None:
    """Read what comes of a body, and keep nothing of it."""
    size, more = 0, True
    with anyio.move_on_after(DROPPED_S):
        while more and size < DROPPED_BYTES:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)


def _is_own(headers: Headers) -> bool:
    """Whether a request comes from our page, or from none. Browsers say which of the two to addresses that they trust
    (Sec-Fetch-Site), to others only by what host the page was (Origin), which is then ours, or that of our proxy."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    if origin is None:
        return True
    ours = (headers.get(name, "").lower() for name in ("host", "x-forwarded-host"))
    return origin.lower().partition("://")[2] in {one for one in ours if one}


HOST = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*?)\.?)(?::[0-9]*)?")


def _name(host: str) -> str:
    """The name in a header Host, without the port; "" where there is none."""
    found = HOST.fullmatch(host.lower())
    return "" if found is None else found[1] or found[2] or ""
