"""The verbs of `pixelwise`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import pixelwise
from pixelwise.cli.light import lighten
from pixelwise.cli.options import Change, with_segment_options
from pixelwise.datasets import layouts
from pixelwise.engines import ENGINES, NAMES
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.outputs.formats import FORMATS, VOLUME_FORMATS
from pixelwise.precision import PRECISIONS

CORRUPTIONS = (
    "noise, blur, weather, digital; gaussian_noise, shot_noise, impulse_noise, speckle_noise, "
    "defocus_blur, glass_blur, motion_blur, zoom_blur, gaussian_blur, snow, frost, fog, spatter, "
    "brightness, contrast, saturate, pixelate, jpeg"
)
"""Families and names, written out because their module needs NumPy, which help does without; a test compares."""


class Verbs(TyperGroup):
    """The commands; one that is not there is answered in a sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lighten(self, ctx)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            lighten(command, ctx)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            if os.path.exists(name):
                raise InputError(
                    f"{name} is no command; to segment it: pixelwise segment {shlex.quote(name)}"
                )
            raise UnknownNameError("command", name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="pixelwise",
    cls=Verbs,
    help="Semantic segmentation: a class for every pixel.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _one_of(*names: str) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}."


LAYOUTS = _one_of("auto", *layouts.LAYOUTS)
ENGINE = _one_of(*NAMES)
PRECISION = f"What it computes in: {_one_of(*PRECISIONS)} Default: what the model is, float32."
PROTOCOLS = "How to score: own-size, torchvision, sliding-512, sliding-1024 or multi-scale-flip."
MODEL = "A name from `pixelwise models`, a run or folder, a file of weights, an ONNX file, or OWNER/NAME of the Hub."
MODELS = f"{MODEL} Given several times, such as for folds, the mean of their logits counts."
MAP_IDS = "Change ids of the label files first, such as 1-65535=1 (objects to one class) or 7=255."

DEVICE = "Where it runs: cpu, cuda, cuda:1, mps or auto, the fastest there is; default: cpu."

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")]


@app.command()
@with_segment_options
def segment(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES...",
            help="Pictures, rasters, videos, volumes, folders (searched through), quoted patterns, - for standard "
            "input, camera:0.",
        ),
    ],
    model: Annotated[list[str], typer.Option("--model", "-m", help=MODELS)] = ["everyday"],  # noqa: B006
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the results, made if missing. Of one source also a file: .png its label map, .jpg the "
            "overlay, .tif, .nii.gz, .npy, .csv, .json and so on, or any one --format.",
        ),
    ] = Path(),
    format: Annotated[
        str | None,
        typer.Option(
            help=f"What to write, comma separated: {', '.join(FORMATS)}. Default: labels,overlay; of a raster "
            "geotiff; of a video overlay (or json, a line a frame); of a volume nifti,contours (of "
            f"{', '.join(VOLUME_FORMATS)})."
        ),
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option(help="Also write a black and white mask of this class.")
    ] = None,
    change: Change,
    seams: Annotated[
        bool, typer.Option("--seams", help="Say how far neighbouring tiles agree before they are blended.")
    ] = False,
    bands: Annotated[
        str | None, typer.Option(help="Of a raster, from 1, in the network's order: 4,3,2.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="LOW,HIGH: the values to show as black and white, of rasters and of pictures of more than 8 bits. "
            "Default: the model's, else percentiles of each."
        ),
    ] = None,
    smooth: Annotated[
        float,
        typer.Option(
            min=0, max=0.99, help="Of a video: weight of the frames before, such as 0.6. Default: 0."
        ),
    ] = 0.0,
    engine: Annotated[str, typer.Option(help=ENGINE)] = "auto",
    precision: Annotated[str | None, typer.Option(help=PRECISION)] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run: leave out what is finished.")
    ] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Refuse pictures and frames of more pixels.")
    ] = None,
    max_raster_pixels: Annotated[
        int | None, typer.Option(min=1, help="Refuse rasters of more pixels; default: 10,000,000,000.")
    ] = None,
    max_memory_mb: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Refuse rasters and volumes that need more to be read and joined; default: half of what is free.",
        ),
    ] = None,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Read what files name elsewhere, on this machine or the network, such as the parts of a VRT.",
        ),
    ] = False,
    slices: Annotated[
        bool, typer.Option("--slices", help="Segment volumes slice by slice, with a model of pictures.")
    ] = False,
    assume_orientation: Annotated[
        str | None,
        typer.Option(
            metavar="<letters>",
            help="Of volumes that do not say it: where columns, rows and slices grow towards, such as RAS.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one a core.")] = None,
    debug: Debug = False,
) -> None:
    """Write a label map and an overlay for every picture. Prints what was found."""
    from pixelwise.cli.segment import reading, run

    failed = run(
        sources,
        model,
        out,
        format,
        mask or [],
        engine,
        precision,
        threads,
        device,
        change,
        reading(
            bands,
            scale,
            max_pixels,
            max_raster_pixels,
            max_memory_mb,
            allow_remote,
            slices,
            assume_orientation,
        ),
        smooth=smooth,
        seams=seams,
        json=json,
        overwrite=overwrite,
        resume=resume,
        debug=debug,
    )
    sys.exit(failed)


@app.command()
def models(
    pattern: Annotated[
        str, typer.Argument(help="Only names with this in them, or like it, such as deeplab or 'unet*'.")
    ] = "*",
    json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List the models that are known by name."""
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
    """Rewrite a checkpoint as safetensors with a card, or back. Of any known family, and into its names."""
    from pixelwise.cli.convert import run

    run(source, out, to, allow_pickle, overwrite)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, such as model.onnx.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="onnx, openvino (.xml with .bin) or torch-export (.pt2); default: what OUT ends in."
        ),
    ] = None,
    bake: Annotated[
        bool,
        typer.Option("--bake", help="The whole way: a picture (uint8) goes in, its label map comes out."),
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="Of the weights: float32 (default), or float16 for half the file.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="H,W: the one size of pictures that the file takes; default: any.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write a model with its card, to run without torch. Compared with the model at three sizes."""
    from pixelwise.cli.export import run

    run(model, out, to, bake, precision, size, overwrite)


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    data: Annotated[Path, typer.Option(help="A folder of pictures like those it is for, labelled or not.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, such as model.int8.onnx.")],
    agreement: Annotated[
        float | None, typer.Option(help="The share of the pixels that must keep their class; default: 0.99.")
    ] = None,
    mean_iou_drop: Annotated[
        float | None,
        typer.Option(help="In its place, of labelled data: how much mean IoU may be lost, such as 0.005."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="onnx, or openvino (.xml); default: what OUT ends in.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one a core.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write a model in int8, if it is then 1.5 times as fast. Says what it loses."""
    from pixelwise.cli.quantize import run

    run(model, data, out, agreement, mean_iou_drop, to, threads, overwrite)


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help=f"{MODEL} May be given several times, and as NAME=MODEL; the first is the default.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: one that is free.")] = 8000,
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the token that requests must bear; else PIXELWISE_TOKEN of the environment."
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help=ENGINE)] = "auto",
    precision: Annotated[str | None, typer.Option(help=PRECISION)] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one a core.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Pictures segmented at a time; default: one a core, at most 4.")
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(min=0, help="Requests that may wait, the others get 429; default: 8 a worker."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes, each with its own models, workers and queue.")
    ] = 1,
    timeout_s: Annotated[float, typer.Option(help="Seconds from accepting a request to its answer.")] = 60,
    body_timeout_s: Annotated[float, typer.Option(help="Seconds for a request to arrive.")] = 20,
    max_mb: Annotated[float, typer.Option(help="Megabytes of a request.")] = 64,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of the pictures of a request.")
    ] = 120_000_000,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a request.")] = 16,
    max_memory_mb: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Memory for networks; a picture that takes more is cut into tiles; default: half of what is free.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Serve models over HTTP, with a page to drop pictures on. Only to this machine unless told otherwise."""
    from pixelwise.cli.serve import run
    from pixelwise.service.limits import Limits

    if not 0 < max_mb < 10**9:
        raise InputError(f"--max-mb takes megabytes, such as 64, got {max_mb:g}")
    limits = Limits(
        max_bytes=round(max_mb * 1_000_000), max_pixels=max_pixels, max_pictures=max_pictures, workers=workers,
        queue=queue, timeout_s=timeout_s, body_timeout_s=body_timeout_s,
        max_memory=None if max_memory_mb is None else max_memory_mb * 1_000_000,
    )  # fmt: skip
    run(
        model or ["everyday"], host, port, limits, engine=engine, precision=precision, threads=threads, device=device,
        token_file=token_file, processes=processes, browser=open,
    )  # fmt: skip


@app.command()
def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help=f"{MODEL} Default: everyday.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Pictures of your own, or a data set; default: drawn ones.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help=f"Only these, comma separated: {', '.join(ENGINES)}.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Only these, comma separated: float32, bfloat16, float16, int8.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures at once, such as 1,4.")] = "1",
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 20,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one a core.")] = None,
    agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pixels that must keep their class.")
    ] = 0.99,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a plot of speed against agreement, an .svg.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Measure models on this machine: engines, precisions and batches. Ends with the line to use."""
    from pixelwise.cli.bench import run

    run(models or [], data, engine, precision, batch, rounds, threads, agreement, json, out, overwrite)


@app.command()
def init(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Folders, files or quoted patterns of pictures and their labels."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make; nothing is written over.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    classes: Annotated[
        str | None, typer.Option(help="Names in the order of their ids, comma separated, or a file of them.")
    ] = None,
    palette: Annotated[
        Path | None,
        typer.Option(help="A file of classes with colours, such as `road 128 64 128`, a line each."),
    ] = None,
    map_ids: Annotated[str | None, typer.Option(help=MAP_IDS)] = None,
    ignore_id: Annotated[int, typer.Option(help="The id that counts for nothing; -1: none.")] = 255,
    keep_ids: Annotated[
        bool,
        typer.Option("--keep-ids", help="Numbers are classes, also where they look like those of objects."),
    ] = False,
    regions: Annotated[
        bool, typer.Option("--regions", help="Classes may overlap: keep a label map for each.")
    ] = False,
    doubt: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pixels between two classes that is allowed.")
    ] = 0.1,
    debug: Debug = False,
) -> None:
    """Make a data set from pictures and labels as people have them. Shows the pairs and asks."""
    from pixelwise.cli.init import run

    sys.exit(run(sources, out, classes, palette, map_ids, ignore_id, keep_ids, regions, doubt, yes))


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A folder with images/ and masks/, or another layout.")],
    format: Annotated[str, typer.Option(help=LAYOUTS)] = "auto",
    num_classes: Annotated[int | None, typer.Option(min=1, help="Ids from 0 up to this are classes.")] = None,
    ignore_id: Annotated[int, typer.Option(help="The id that counts for nothing; -1: none.")] = 255,
    map_ids: Annotated[str | None, typer.Option(help=MAP_IDS)] = None,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="First rewrite label maps of the wrong form whose ids are right; originals are kept.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Find what is wrong with a data set before training. Says where, and how to mend it."""
    from pixelwise.cli.check import run

    sys.exit(run(data, format, num_classes, ignore_id, map_ids, json, fix))


@app.command()
def selftest(
    only: Annotated[
        list[str] | None, typer.Argument(help="Only checks whose names begin so; default: all.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Make the files of the checks in here, to try its file system.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a report as JSON, without private names.")
    ] = False,
    sbom: Annotated[
        Path | None,
        typer.Option(help="Only write a bill of materials (CycloneDX JSON) of what is installed."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bill if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Find out whether this installation works on this machine. Takes about a minute; exit code 1 if not."""
    from pixelwise.cli.selftest import run

    sys.exit(run(only or [], folder, sbom, json, overwrite))


@app.command()
@with_segment_options
def evaluate(
    *,
    data: Annotated[Path, typer.Option(help="A folder with images/ and masks/, or another layout.")],
    format: Annotated[str, typer.Option(help=LAYOUTS)] = "auto",
    split: Annotated[
        str | None,
        typer.Option(
            help="Which part; default: val, or test, or all; of the undivided folder that the model was trained on, "
            "val. An undivided folder has train and val too."
        ),
    ] = None,
    map_ids: Annotated[str | None, typer.Option(help=MAP_IDS)] = None,
    model: Annotated[list[str], typer.Option("--model", "-m", help=MODELS)] = ["everyday"],  # noqa: B006
    engine: Annotated[str, typer.Option(help=ENGINE)] = "auto",
    precision: Annotated[str | None, typer.Option(help=PRECISION)] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE)] = None,
    protocol: Annotated[str, typer.Option(help=PROTOCOLS)] = "own-size",
    change: Change,
    mean_over: Annotated[
        str | None, typer.Option(help="Also the mean IoU over these classes, comma separated.")
    ] = None,
    by_place: Annotated[
        bool,
        typer.Option("--by-place", help="Compare classes by their place where their names are others."),
    ] = False,
    corrupt: Annotated[
        str | None,
        typer.Option(
            help="Also score corrupted pictures: all, cityscapes-c, imagenet-c, or names, each with a strength from 1 "
            f"to 5 or without, such as fog,jpeg:3. Names: {CORRUPTIONS}."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --corrupt: another seed, other noise and weather.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for report.html, report.json, confusion.png and worst/."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that exists.")] = False,
    debug: Debug = False,
) -> None:
    """Score a model on labelled pictures. A table by class, a summary, and a page to look at."""
    from pixelwise.cli.evaluate import run

    names = [] if mean_over is None else [name.strip() for name in mean_over.split(",")]
    run(
        data,
        format,
        split,
        map_ids,
        model,
        engine,
        precision,
        device,
        protocol,
        change,
        names,
        by_place,
        corrupt,
        seed,
        out,
        json,
        overwrite,
    )


def _list_recipes(show: bool) -> None:
    if show:
        from pixelwise.recipes.published import listing

        print(listing())
        raise typer.Exit


@app.command()
def train(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run, made if missing.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A folder with images/ and masks/, or another layout.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time that the run may take, such as 20min: sets the steps.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan: each decision with its reason.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print the configuration, for --config.")
    ] = False,
    format: Annotated[str | None, typer.Option(help=LAYOUTS)] = None,
    map_ids: Annotated[str | None, typer.Option(help=MAP_IDS)] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A decoder, such as unet, or a network of `pixelwise models`."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="What the decoder builds on, such as resnet34; none for none.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of the encoder: auto, none, imagenet or a file. auto: imagenet if it can be had."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="How often each picture is seen, instead of --budget.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser, instead of --budget.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures of one forward pass.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes of one step.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize pictures to this shorter side; also the side of the crops.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(min=32, help="Side of crops out of the pictures at their own size.")
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(help="Of scans: voxels seen at a time, slices, rows and columns, such as 40,56,40."),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(help="Of scans: the voxels that the network sees, in mm, such as 2.5,1,1."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Train so many networks, each on what the others hold out; OUT opens as their mean."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    ema: Annotated[float | None, typer.Option(help="Keep an average of the weights, decaying so.")] = None,
    losses: Annotated[
        str | None,
        typer.Option(help="Names and weights, such as cross_entropy=1,dice=1 or ohem_cross_entropy=1."),
    ] = None,
    class_balanced: Annotated[
        bool | None, typer.Option("--class-balanced", help="Show pictures with rare classes more often.")
    ] = None,
    freeze_encoder: Annotated[
        bool | None, typer.Option("--freeze-encoder", help="Leave the encoder as it is.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that load pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another run.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where it runs: cpu, cuda, cuda:1 or mps; default: a GPU if there is one."),
    ] = None,
    track: Annotated[list[str] | None, typer.Option(help="Also log to tensorboard, wandb or mlflow.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config.json to start from; it has all there is to set.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Start from a published recipe; options given beside it change single settings."),
    ] = None,
    list_recipes: Annotated[
        bool, typer.Option("--list-recipes", callback=_list_recipes, is_eager=True, help="List the recipes.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Examine the data first.")] = True,
    export: Annotated[bool, typer.Option("--export", help="Write model.onnx at the end.")] = False,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Only look for a good learning rate.")] = False,
    overfit_batch: Annotated[
        bool, typer.Option("--overfit-batch", help="Only see whether one batch can be learned by heart.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a model, by a plan made from the pictures and label maps.

    Killed at any time, it goes on with --resume.
    """
    from pixelwise.cli.train import given, run

    fields = given(
        data=data, format=format, map_ids=map_ids, model=model, encoder=encoder, weights=weights, epochs=epochs,
        steps=steps, batch_size=batch_size, accumulate=accumulate, image_size=image_size, crop=crop, patch=patch,
        spacing=spacing, peak_lr=lr,
        optimizer=optimizer, clip_norm=clip_norm, ema_decay=ema, losses=losses, class_balanced=class_balanced,
        frozen_encoder=freeze_encoder, precision=precision, workers=workers, seed=seed, trackers=track,
    )  # fmt: skip
    sys.exit(
        run(
            fields,
            recipe,
            config,
            out,
            device=device,
            budget=budget,
            dry_run=dry_run,
            json=json,
            resume=resume,
            check=check,
            export=export,
            find_lr=find_lr,
            overfit=overfit_batch,
            folds=folds,
        )
    )
