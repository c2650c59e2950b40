"""The options of the command line that say how to segment, for every command that segments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, TypeVar

import typer

from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.inference.options import Overlap, SegmentOptions

Change: TypeAlias = "Callable[[SegmentOptions], SegmentOptions]"
"""What was typed: options to the same with what was typed in its place."""


class Reads(NamedTuple):
    """What becomes of the text of an option: parse makes the value of the field of SegmentOptions, by the option's name
    unless another is given."""

    parse: Callable[[str], Any]
    field: str | None = None


def _segment_options(
    tile: Annotated[
        str | None,
        typer.Option(help="Cut into tiles of so many pixels, or auto: as the memory allows."),
        Reads(
            lambda text: (
                "auto" if text == "auto" else number("--tile", text, int, "a number of pixels, or auto")
            )
        ),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(help="Of tiles: pixels, a share below 1, or auto. Default: 0.25."),
        Reads(lambda text: _overlap(text)),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="How tiles are blended: constant, linear, gaussian (default) or spline."),
        Reads(str),
    ] = None,
    flip: Annotated[
        str | None,
        typer.Option(
            help="Average with the mirrored picture: horizontal, vertical, or both with a comma; of volumes "
            "columns,rows,slices."
        ),
        Reads(lambda text: named("--flip", text), "flips"),
    ] = None,
    rotate: Annotated[
        str | None,
        typer.Option(help="Average with the turned picture: degrees, of 90,180,270."),
        Reads(lambda text: numbers("--rotate", text, int, "degrees, such as 90,180,270"), "rotations"),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(help="Average over these sizes, comma separated: 0.75,1,1.25."),
        Reads(lambda text: numbers("--scales", text, float, "factors, such as 0.75,1,1.25")),
    ] = None,
    average: Annotated[
        str | None,
        typer.Option(
            help="What flips, turns and sizes are averaged over: logits (default) or probabilities."
        ),
        Reads(str),
    ] = None,
    crf: Annotated[
        str | None,
        typer.Option(help="Refine borders with a dense CRF: off (default), vgg or resnet."),
        Reads(lambda text: None if text == "off" else text),
    ] = None,
    min_confidence: Annotated[
        str | None,
        typer.Option(
            metavar="<float>", help="Ignore pixels whose class is less probable than this, such as 0.5."
        ),
        Reads(lambda text: number("--min-confidence", text, float, "a probability, such as 0.5")),
    ] = None,
    min_area: Annotated[
        str | None,
        typer.Option(metavar="<int>", help="Give regions of fewer pixels (voxels) than this to a neighbour."),
        Reads(lambda text: number("--min-area", text, int, "a number of pixels")),
    ] = None,
    min_mm3: Annotated[
        str | None,
        typer.Option(metavar="<float>", help="The same of volumes, in cubic millimetres."),
        Reads(lambda text: number("--min-mm3", text, float, "a number of cubic millimetres")),
    ] = None,
    fill_holes: Annotated[
        str | None,
        typer.Option(help="Fill holes in these classes, comma separated."),
        Reads(lambda text: named("--fill-holes", text)),
    ] = None,
    largest_only: Annotated[
        str | None,
        typer.Option(help="Keep only the largest region of these classes."),
        Reads(lambda text: named("--largest-only", text)),
    ] = None,
) -> None:
    """Never called: the options, their help and how their text is read are all that is taken from it."""


@functools.cache
def _parameters() -> Mapping[str, inspect.Parameter]:
    """The options of `_segment_options` by name, evaluated once for all commands."""
    return inspect.signature(_segment_options, eval_str=True).parameters


def _typed(given: Mapping[str, str | None]) -> Change:
    """The change that the texts of options make. What is no number where one is expected is answered with the form that
    is, whatever else may be wrong; the rest is for SegmentOptions to check."""
    values: dict[str, Any] = {}
    for name, parameter in _parameters().items():
        (reads,) = (extra for extra in parameter.annotation.__metadata__ if isinstance(extra, Reads))
        if (text := given[name]) is not None:
            values[reads.field or name] = reads.parse(text)
    return lambda before: replace(before, **values)


def with_segment_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `_segment_options` where it has the parameter `change`, which they become."""
    options = _parameters()
    own = inspect.signature(command, eval_str=True).parameters
    shown = [p for one in own.values() for p in (options.values() if one.name == "change" else [one])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(change=_typed({name: given.pop(name) for name in options}), **given)

    kind = inspect.Parameter.KEYWORD_ONLY
    vars(run)["__signature__"] = inspect.Signature([p.replace(kind=kind) for p in shown])
    run.__annotations__ = {p.name: p.annotation for p in shown}
    return run


def _overlap(text: str) -> Overlap:
    if text == "auto":
        return "auto"
    share = number("--overlap", text, float, "pixels, a share below 1, or auto")
    return int(share) if 1 <= share < 2**31 else share  # what is no size is for SegmentOptions to refuse


Number = TypeVar("Number", int, float)


def number(option: str, text: str, kind: type[Number], form: str) -> Number:
    """The text as a number, or InputError with the form that the option takes."""
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{option} takes {form}, got {text!r}") from None


def numbers(option: str, text: str | None, kind: type[Number], form: str) -> tuple[Number, ...] | None:
    """What stands between the commas, None where nothing was typed."""
    try:
        return None if text is None else tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} takes {form}, got {text!r}") from None


def names(text: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def named(option: str, text: str) -> tuple[str, ...]:
    """The same, at least one."""
    if not (found := names(text)):
        raise InputError(f"{option} takes names, comma separated, got {text!r}")
    return found
