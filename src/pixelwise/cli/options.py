"""The options of the command line that say how to segment, for every command that segments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, cast

import typer

from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.inference.options import Overlap, SegmentOptions, Tile
    from pixelwise.inference.tiling import Window
    from pixelwise.inference.tta import Average, Flip

Change: TypeAlias = "Callable[[SegmentOptions], SegmentOptions]"
"""What was typed: options to the same with what was typed in its place."""


def segment_options(
    tile: Annotated[
        str | None, typer.Option(help="Cut into tiles of so many pixels, or auto: as the memory allows.")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(help="Of tiles: pixels, a share below 1, or auto. Default: 0.25.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="How tiles are blended: constant, linear, gaussian (default) or spline."),
    ] = None,
    flip: Annotated[
        str | None,
        typer.Option(help="Average with the mirrored picture: horizontal, vertical, or both with a comma."),
    ] = None,
    rotate: Annotated[
        str | None, typer.Option(help="Average with the turned picture: degrees, of 90,180,270.")
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Average over these sizes, comma separated: 0.75,1,1.25.")
    ] = None,
    average: Annotated[
        str | None,
        typer.Option(
            help="What flips, turns and sizes are averaged over: logits (default) or probabilities."
        ),
    ] = None,
    crf: Annotated[
        str | None, typer.Option(help="Refine borders with a dense CRF: off (default), vgg or resnet.")
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Ignore pixels whose class is less probable than this, such as 0.5.")
    ] = None,
    min_area: Annotated[
        int | None, typer.Option(help="Give regions of fewer pixels than this to a neighbour.")
    ] = None,
    fill_holes: Annotated[
        str | None, typer.Option(help="Fill holes in these classes, comma separated, or all.")
    ] = None,
    largest_only: Annotated[
        str | None, typer.Option(help="Keep only the largest region of these classes, or of all.")
    ] = None,
) -> Change:
    """What is no number where one is expected is answered with the form that is; the rest is for SegmentOptions."""

    def change(before: SegmentOptions) -> SegmentOptions:
        from pixelwise.inference.options import SegmentOptions

        return SegmentOptions(
            tile=before.tile if tile is None else _tile(tile),
            overlap=before.overlap if overlap is None else _overlap(overlap),
            window=before.window if window is None else cast("Window", window),
            flips=before.flips if flip is None else cast("tuple[Flip, ...]", names(flip)),
            rotations=numbers("--rotate", rotate, int, "degrees, such as 90,180,270") or before.rotations,
            scales=numbers("--scales", scales, float, "factors, such as 0.75,1,1.25") or before.scales,
            average=before.average if average is None else cast("Average", average),
            crf=before.crf if crf is None else None if crf == "off" else crf,
            min_confidence=before.min_confidence if min_confidence is None else min_confidence,
            min_area=before.min_area if min_area is None else min_area,
            fill_holes=before.fill_holes if fill_holes is None else names(fill_holes),
            largest_only=before.largest_only if largest_only is None else names(largest_only),
        )

    return change


def with_segment_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `segment_options` where it has the parameter `change`, which they become."""
    options = inspect.signature(segment_options, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    shown = [p for one in own.values() for p in (options.values() if one.name == "change" else [one])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(change=segment_options(**{name: given.pop(name) for name in options}), **given)

    kind = inspect.Parameter.KEYWORD_ONLY
    vars(run)["__signature__"] = inspect.Signature([p.replace(kind=kind) for p in shown])
    run.__annotations__ = {p.name: p.annotation for p in shown}
    return run


def _tile(text: str) -> Tile:
    return "auto" if text == "auto" else _number("--tile", text, int, "a number of pixels, or auto")


def _overlap(text: str) -> Overlap:
    if text == "auto":
        return "auto"
    share = _number("--overlap", text, float, "pixels, a share below 1, or auto")
    return share if share < 1 else int(share)


Number = TypeVar("Number", int, float)


def _number(option: str, text: str, kind: type[Number], form: str) -> Number:
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
