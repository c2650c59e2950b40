"""Commands that begin without pydantic, which newer Typers load to look at every option: as long as NumPy takes.

Where what was typed, or the default, is what the function asks for, nothing has to be converted; whatever else is there
goes to Typer's own conversion, with its messages. Typers that have no such part are left as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MORE = ("parser", "exists", "writable", "resolve_path", "allow_dash", "path_type")
"""What makes more of a text than a text or a path."""


class _AsItIs:
    """In the place of Typer's conversion of one option; the first value that it does not know brings that back."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        kind = param.type_descriptor.annotation
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if any(getattr(param.type_descriptor.parameter_info, more, None) for more in MORE):
            pass
        elif (
            many
            and kind == list[str]
            and not isinstance(value, str)
            and all(type(one) is str for one in value)
        ):
            return list(value)
        elif not many and kind is Path and isinstance(value, (str, Path)):
            return Path(value)
        elif not many and isinstance(kind, type) and type(value) is kind:
            return value
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def lighten(command: Any, ctx: Any) -> None:
    """Let a command of Typer convert only what needs it."""
    for param in command.get_params(ctx):  # with --help, which is no part of `params`
        if getattr(param, "_runtime_param", param) is None and hasattr(param, "type_descriptor"):
            param._runtime_param = _AsItIs()
