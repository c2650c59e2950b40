"""The service: `create_app` makes a FastAPI application of loaded models. Needs the extra `serve`."""

from pixelwise.errors import MissingExtraError

try:
    from pixelwise.service.app import create_app
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in (
        "fastapi",
        "starlette",
        "prometheus_client",
        "pydantic",
        "anyio",
    ):
        raise
    raise MissingExtraError("the service", "serve") from error
from pixelwise.service.limits import Limits

__all__ = ["Limits", "create_app"]
