"""The verbs of `pixelwise`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import pixelwise

app = typer.Typer(
    name="pixelwise",
    help="Semantic segmentation: a class for every pixel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        print(pixelwise.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")]


@app.command()
def segment(
    pictures: Annotated[
        list[str], typer.Argument(help="Files, folders (searched through), or quoted patterns.")
    ],
    model: Annotated[str, typer.Option(help="A name from `pixelwise models`, or an ONNX file.")] = "everyday",
    out: Annotated[Path, typer.Option(help="Folder for the results, made if missing.")] = Path(),
    format: Annotated[
        str,
        typer.Option(
            help="What to write, comma separated: labels, overlay, legend, ids, confidence, npy, json."
        ),
    ] = "labels,overlay",
    mask: Annotated[
        list[str] | None, typer.Option(help="Also write a black and white mask of this class.")
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, onnxruntime or pytorch.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    max_pixels: Annotated[int | None, typer.Option(help="Refuse pictures of more pixels.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one a core.")] = None,
    debug: Debug = False,
) -> None:
    """Write a label map and an overlay for every picture; print what was found."""
    from pixelwise.cli.segment import run

    failed = run(
        pictures,
        model,
        out,
        format.split(","),
        mask or [],
        engine,
        json,
        overwrite,
        max_pixels,
        threads,
        debug,
    )
    sys.exit(failed)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Only names like this, such as 'deeplab*'.")] = "*",
    json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List the models that `segment --model` and pixelwise.models know."""
    from pixelwise.cli.models import run

    run(pattern, json)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint file, or a folder as Hugging Face writes it.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .safetensors, or .pth with --to.")],
    to: Annotated[
        str | None, typer.Option(help="Write in this family's names; default: ours, with a card.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read files that hold code, from a maker you trust.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Rewrite a checkpoint of any known family as safetensors with a card, or back into a family's names."""
    from pixelwise.cli.convert import run

    run(source, out, to, allow_pickle, overwrite)


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A folder with images/ and masks/, or another layout.")],
    format: Annotated[str, typer.Option(help="auto, folder, voc, camvid, cityscapes or ade20k.")] = "auto",
    num_classes: Annotated[int | None, typer.Option(min=1, help="Ids from 0 up to this are classes.")] = None,
    ignore_id: Annotated[int, typer.Option(help="The id that counts for nothing; -1: none.")] = 255,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Examine a data set before training: what is wrong, where, and how to mend it."""
    from pixelwise.cli.check import run

    sys.exit(run(data, format, num_classes, ignore_id, json))


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="A folder with images/ and masks/, or another layout.")],
    format: Annotated[str, typer.Option(help="auto, folder, voc, camvid, cityscapes or ade20k.")] = "auto",
    split: Annotated[
        str | None, typer.Option(help="Which part; default: val, or test, or all there is.")
    ] = None,
    model: Annotated[str, typer.Option(help="A name from `pixelwise models`, or an ONNX file.")] = "everyday",
    engine: Annotated[str, typer.Option(help="auto, onnxruntime or pytorch.")] = "auto",
    protocol: Annotated[str, typer.Option(help="How to score: own-size.")] = "own-size",
    mean_over: Annotated[
        str | None, typer.Option(help="Also the mean IoU over these classes, comma separated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html, report.json, confusion.png and worst/.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists.")] = False,
    debug: Debug = False,
) -> None:
    """Score a model on labelled pictures: a table by class, a summary, and a page to look at."""
    from pixelwise.cli.evaluate import run

    names = [] if mean_over is None else [name.strip() for name in mean_over.split(",")]
    run(data, format, split, model, engine, protocol, names, out, json, overwrite)
