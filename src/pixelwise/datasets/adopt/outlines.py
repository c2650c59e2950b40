"""Outlines in files of others, drawn: COCO's JSON with categories of its own, YOLO's lines of text, LabelMe's JSON.

Only pictures that were found are drawn on: a file says which by a name, and no name is opened. Smaller outlines lie
over larger ones, crowds are ignored, and what several classes cover is counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import code_type
from pixelwise.datasets.adopt.names import part_of
from pixelwise.errors import InputError
from pixelwise.outputs.coco import decode_rle
from pixelwise.outputs.polygons import Polygon, fill
from pixelwise.terminal import counted
from pixelwise.untrusted import first_twice, read

MOST_BYTES = 2**31
"""Of a file of outlines."""

LARGEST_TEXT = 2**24
"""Bytes of one picture's lines."""


def ignored_of(count: int) -> int:
    """The id of what is ignored beside so many outlined classes, which are numbered from 1."""
    return 255 if count < 255 else 65535


@dataclass(frozen=True)
class Shape:
    """Something outlined. kind: its class's place among the names. rings: corners (n, 2) of column and row, each ring
    filled. runs: COCO's run lengths instead. scaled: corners are shares of the picture's width and height. traced: they
    are the middles of the pixels along the inside of the border, as OpenCV finds contours."""

    kind: int
    rings: tuple[NDArray[np.float64], ...] = ()
    runs: Mapping[str, Any] | None = None
    crowd: bool = False
    scaled: bool = False
    traced: bool = False


@dataclass
class Outlines:
    """What files of one sort say. names: of the classes, without a background. shapes: of each picture that they name.
    sizes: (h, w) of the pictures, where the file says it. splits: the part, likewise. notes: what was left out; said:
    what was done."""

    label: str
    names: list[str]
    shapes: dict[PurePath, list[Shape]] = field(default_factory=dict)
    sizes: dict[PurePath, tuple[int, int]] = field(default_factory=dict)
    splits: dict[PurePath, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Category:
    id: int
    name: str


@dataclass(frozen=True)
class _Picture:
    id: int | str
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class _Annotation:
    image_id: int | str
    category_id: int
    segmentation: Any = None
    bbox: Any = None
    iscrowd: int = 0


@dataclass(frozen=True)
class _Coco:
    images: list[_Picture]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class _LabelMeShape:
    label: str
    points: Any = None
    shape_type: str = "polygon"


@dataclass(frozen=True)
class _LabelMe:
    shapes: list[_LabelMeShape]
    imagePath: str
    imageHeight: int | None = None
    imageWidth: int | None = None


def find_outlines(files: Mapping[PurePath, Path], pictures: Sequence[PurePath]) -> list[Outlines]:
    """What the .json and .txt files among `files` say of the pictures, one for each sort that is there.

    Raises InputError, with the file, for one that is of a sort by its looks and cannot be read as such.
    """
    found: list[Outlines] = []
    coco, labelme = [], []
    for name, path in files.items():
        if path.suffix.lower() == ".json":
            keys = _keys(path)
            if {'"images"', '"annotations"', '"categories"'} <= keys:
                coco.append((name, path))
            elif {'"shapes"', '"imagePath"'} <= keys:
                labelme.append((name, path))
    by_name = _by_name(pictures)
    if coco:
        found.append(_from_coco(coco, by_name))
    if labelme:
        found.append(_from_labelme(labelme, by_name))
    unread: list[str] = []
    if lines := _yolo_files(files, pictures, unread):
        found.append(_from_yolo(lines, files))
        found[-1].notes += unread
    return [one for one in found if one.shapes]


def draw(
    shapes: Sequence[Shape], size_hw: tuple[int, int], count: int, *, codes: bool
) -> tuple[NDArray[Any], int]:
    """(the label map (h, w), pixels that several classes cover). Classes are numbered from 1, 0 is what none covers.

    count: of the classes. codes: give `pixelwise.codes` instead, in which they may overlap.
    """
    out = np.zeros(size_hw, code_type(count) if codes else np.min_scalar_type(max(count, ignored_of(count))))
    masks = [(shape, _mask(shape, size_hw)) for shape in shapes]
    if codes:
        for shape, mask in masks:
            if not shape.crowd:
                out[mask] |= out.dtype.type(1 << shape.kind)
        return out, 0
    contested, ignored = np.zeros(size_hw, bool), ignored_of(count)
    for shape, mask in sorted(masks, key=lambda one: (not one[0].crowd, -int(one[1].sum()))):
        id = ignored if shape.crowd else shape.kind + 1
        if not shape.crowd:
            contested |= mask & (out != 0) & (out != id) & (out != ignored)
        out[mask] = id
    return out, int(contested.sum())


def _mask(shape: Shape, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size_hw, np.uint8)
    if shape.runs is not None:
        if list(shape.runs.get("size") or ()) != [*size_hw]:
            raise InputError(
                f"run lengths of the size {str(shape.runs.get('size'))[:40]} for a picture of {size_hw}"
            )
        try:
            return decode_rle(shape.runs)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise InputError(f"run lengths that cannot be read ({str(error)[:80]})") from error
    scale = np.array(size_hw[::-1] if shape.scaled else (1, 1), np.float64)
    fill([Polygon(1, 0, 0, (ring * scale + 0.5 * shape.traced,)) for ring in shape.rings], mask)
    if shape.traced:
        for ring in shape.rings:
            column, row = _pixels_along(ring).T
            there = (row >= 0) & (row < size_hw[0]) & (column >= 0) & (column < size_hw[1])
            mask[row[there], column[there]] = 1
    return mask.astype(bool)


def _are_traced(shapes: Iterable[Shape]) -> bool:
    """Whether all corners are whole numbers and all sides run along rows, columns and diagonals, of which there are
    some: only the tracing of pixels does that. Along the edges of pixels there are no diagonals."""
    diagonals = 0
    for shape in shapes:
        for ring in shape.rings:
            across, down = np.abs(np.diff(ring, axis=0, append=ring[:1])).T
            if (ring != np.round(ring)).any() or ((across != 0) & (down != 0) & (across != down)).any():
                return False
            diagonals += int(((across == down) & (across > 0)).sum())
    return diagonals > 0


def _pixels_along(ring: NDArray[np.float64]) -> NDArray[np.int64]:
    """The pixels (n, 2) of column and row on the sides of a traced ring."""
    sides = zip(ring, np.roll(ring, -1, axis=0), strict=True)
    return np.concatenate(
        [np.linspace(a, b, int(min(np.abs(b - a).max(), 2**16)) + 1) for a, b in sides]
    ).astype(np.int64)


def _keys(path: Path) -> set[str]:
    """Which keys a file of JSON may have, from its text: it may be large, and most are not ours to read."""
    wanted = ('"images"', '"annotations"', '"categories"', '"shapes"', '"imagePath"')
    found, tail = set(), b""
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                found |= {key for key in wanted if key.encode() in tail + block}
                tail = block[-20:]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    return found


ByName = Callable[[str], "PurePath | None"]


def _by_name(pictures: Iterable[PurePath]) -> ByName:
    """Which picture a file means by a name: the one that ends in its folders and name, or is the only one so called."""
    of_name: dict[str, list[PurePath]] = defaultdict(list)
    for picture in pictures:
        of_name[picture.name].append(picture)

    def which(said: str) -> PurePath | None:
        wanted = PurePath(said.replace("\\", "/"))
        same = of_name.get(wanted.name, [])
        whole = [p for p in same if p.parts[-len(wanted.parts) :] == wanted.parts]
        chosen = whole if len(whole) == 1 else same
        return chosen[0] if len(chosen) == 1 else None

    return which


def _from_coco(files: Sequence[tuple[PurePath, Path]], by_name: ByName) -> Outlines:
    content = [
        (name, path, read(path, _Coco, str(path), most=MOST_BYTES, unknown="leave")) for name, path in files
    ]  # fmt: skip
    names = list(
        dict.fromkeys(c.name for _, _, one in content for c in sorted(one.categories, key=lambda c: c.id))
    )
    outlines = Outlines(f"the outlines in {', '.join(str(name) for name, _ in files[:3])}", names)
    place_of = {name: place for place, name in enumerate(names)}
    missing = without = boxed = 0
    for name, path, one in content:
        for what, ids in (
            ("category", [c.id for c in one.categories]),
            ("image", [_id(p.id) for p in one.images]),
        ):
            if len(set(ids)) < len(ids):
                raise InputError(
                    f"{path} has the {what} id {first_twice(ids)!r:.60} twice, expected one {what} for each id; "
                    "number them anew in the tool that wrote it"
                )
        known = {_id(picture.id) for picture in one.images}
        categories = {c.id: place_of[c.name] for c in one.categories}
        part = part_of(name) if len(files) > 1 else ""
        pictures: dict[int | str, PurePath] = {}
        for picture in one.images:
            if (found := by_name(picture.file_name)) is None:
                missing += 1
                continue
            pictures[_id(picture.id)] = found
            outlines.shapes.setdefault(found, [])
            outlines.sizes[found] = picture.height, picture.width
            if part:
                outlines.splits[found] = part
        for annotation in one.annotations:
            if _id(annotation.image_id) not in known:
                raise InputError(
                    f"{path} has an annotation of image {annotation.image_id!r:.60}, which it does not list; add the "
                    "image or remove the annotation"
                )
            target = pictures.get(_id(annotation.image_id))
            if target is None:
                continue
            if annotation.category_id not in categories:
                raise InputError(
                    f"{path} has an annotation of category {annotation.category_id}, which it does not name"
                )
            shape = _coco_shape(annotation, categories[annotation.category_id], path)
            boxed += shape is not None and not _outlined(annotation)
            without += shape is None
            if shape is not None:
                outlines.shapes[target].append(shape)
    if _are_traced(shape for shapes in outlines.shapes.values() for shape in shapes if not shape.crowd):
        for each, shapes in outlines.shapes.items():
            outlines.shapes[each] = [replace(shape, traced=True) for shape in shapes]
        outlines.said.append(
            "the outlines run through the middles of pixels, which were counted to what they enclose"
        )
    if missing:
        outlines.notes.append(
            f"{counted(missing, 'picture')} that the outlines name: not there, or of a name that several have"
        )
    if without:
        outlines.notes.append(
            f"{counted(without, 'object')} without an outline or a box: their pixels count as what none covers"
        )
    if boxed:
        outlines.said.append(_boxes_said(boxed))
    return outlines


def _boxes_said(count: int) -> str:
    return (
        f"{counted(count, 'object')} without an outline, only a box: what is in the box and in no outline is ignored, "
        "or with --regions counted as what none covers"
    )


def _id(said: int | str) -> int | str:
    """An image's id, a number also where it is written as a text."""
    return int(said) if isinstance(said, str) and re.fullmatch(r"[0-9]{1,18}", said) else said


def _box(left: float, top: float, width: float, height: float) -> NDArray[np.float64]:
    right, bottom = left + width, top + height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _coco_shape(annotation: _Annotation, kind: int, path: Path) -> Shape | None:
    said = _outlined(annotation)
    if not said:
        if not isinstance(annotation.bbox, list) or len(annotation.bbox) != 4:
            return None
        (x, y), (width, height) = _ring(annotation.bbox, path)
        return Shape(kind, (_box(x, y, width, height),), crowd=True)
    if isinstance(said, Mapping):
        return Shape(kind, runs=said, crowd=bool(annotation.iscrowd))
    return Shape(kind, tuple(_ring(ring, path) for ring in said), crowd=bool(annotation.iscrowd))


def _outlined(annotation: _Annotation) -> Mapping[str, Any] | list[Any]:
    """An object's run lengths, or its rings but empty ones; [] where it has no outline."""
    said: Any = annotation.segmentation or []
    if isinstance(said, Mapping) or said == []:
        return said
    rings = said if isinstance(said, list) and isinstance(said[0], list) else [said]
    return [ring for ring in rings if ring != []]


def _ring(numbers: Any, path: Path) -> NDArray[np.float64]:
    """Corners (n, 2) of [x, y, x, y, ...]."""
    if not isinstance(numbers, list) or len(numbers) % 2 or any(type(n) not in (int, float) for n in numbers):
        raise InputError(f"{path} has an outline {str(numbers)[:60]}, expected numbers x, y, x, y, ...")
    try:
        ring = np.array(numbers, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise InputError(f"{path} has an outline with a number of too many digits") from error
    if not (np.abs(ring) < 1e9).all():
        raise InputError(f"{path} has an outline with a corner far from any picture, or that is no number")
    return ring


def _from_labelme(files: Sequence[tuple[PurePath, Path]], by_name: ByName) -> Outlines:
    outlines = Outlines(
        f"the outlines in {files[0][0]} and so on" if len(files) > 1 else f"the outlines in {files[0][0]}", []
    )
    others: dict[str, int] = defaultdict(int)
    missing = 0
    content = [
        (name, path, read(path, _LabelMe, str(path), most=MOST_BYTES, unknown="leave"))
        for name, path in files
    ]
    outlines.names = sorted({shape.label for _, _, one in content for shape in one.shapes})
    place_of = {name: place for place, name in enumerate(outlines.names)}
    for name, path, one in content:
        picture = by_name(one.imagePath) or by_name(
            str(name.with_suffix("").name) + PurePath(one.imagePath).suffix
        )
        if picture is None:
            missing += 1
            continue
        shapes = outlines.shapes.setdefault(picture, [])
        if one.imageHeight and one.imageWidth:
            outlines.sizes[picture] = one.imageHeight, one.imageWidth
        for shape in one.shapes:
            ring = _labelme_ring(shape, path)
            if ring is None:
                others[shape.shape_type] += 1
            else:
                shapes.append(Shape(place_of[shape.label], (ring,)))
    if missing:
        outlines.notes.append(f"{counted(missing, 'file')} of outlines for a picture that is not there")
    outlines.notes += [
        f"{counted(n, 'shape')} of the kind {kind!r:.30}, which encloses nothing"
        for kind, n in others.items()
    ]
    return outlines


def _labelme_ring(shape: _LabelMeShape, path: Path) -> NDArray[np.float64] | None:
    points = shape.points
    if not isinstance(points, list) or any(not isinstance(p, list) or len(p) != 2 for p in points):
        raise InputError(f"{path} has points {str(points)[:60]}, expected a list of [x, y]")
    ring = _ring([number for point in points for number in point], path)
    if shape.shape_type == "rectangle" and len(ring) == 2:
        (a, b), (c, d) = ring
        return np.array([(a, b), (c, b), (c, d), (a, d)])
    if shape.shape_type == "circle" and len(ring) == 2:
        angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = float(np.hypot(*(ring[1] - ring[0])))
        return np.asarray(ring[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return ring if shape.shape_type == "polygon" and len(ring) > 2 else None


def _yolo_files(
    files: Mapping[PurePath, Path], pictures: Sequence[PurePath], unread: list[str]
) -> dict[PurePath, tuple[PurePath, list[list[float]]]]:
    """Picture: (its file of lines, the numbers of each), for .txt files of a picture's name that hold only numbers.
    unread: is given a sentence for each other one."""
    of_stem: dict[str, list[PurePath]] = defaultdict(list)
    for picture in pictures:
        of_stem[picture.stem].append(picture)
    found = {}
    for name, path in files.items():
        if path.suffix.lower() != ".txt" or name.stem not in of_stem:
            continue
        candidates = [p for p in of_stem[name.stem] if part_of(p) == part_of(name)]
        lines = _numbers(path)
        if len(candidates) == 1 and isinstance(lines, int):
            place = f", line {lines}," if lines else ""
            unread.append(f"{name}{place} cannot be read: expected lines of a class and pairs of x and y")
        elif len(candidates) == 1 and not isinstance(lines, int):
            found[candidates[0]] = name, lines
    return found


def _numbers(path: Path) -> list[list[float]] | int:
    """The numbers of each line, or the number of the first line that has anything else; 0 if it is none."""
    rows = []
    number = 0
    try:
        if path.stat().st_size > LARGEST_TEXT:
            return 0
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            row = [float(word) for word in line.split()]
            if row and np.isfinite(row).all() and (len(row) < 5 or not row[0] == int(row[0]) >= 0):
                return number
            rows += [row] if row else []
    except (OSError, ValueError):
        return number
    return rows


def _from_yolo(
    lines: Mapping[PurePath, tuple[PurePath, list[list[float]]]], files: Mapping[PurePath, Path]
) -> Outlines:  # fmt: skip
    folder = next(iter(lines.values()))[0].parent
    outlines = Outlines(f"the outlines in {folder}/*.txt", [])
    boxes = 0
    highest = 0
    for picture, (name, rows) in lines.items():
        shapes = outlines.shapes.setdefault(picture, [])
        for row in rows:
            if not np.isfinite(row).all() or not all(-1 <= number <= 2 for number in row[1:]):
                raise InputError(f"{files[name]} has numbers beyond the picture, expected shares from 0 to 1")
            if len(row) == 5:
                boxes += 1
                x, y, width, height = row[1:]
                ring = _box(x - width / 2, y - height / 2, width, height)
                shapes.append(Shape(_yolo_class(row[0], files[name]), (ring,), crowd=True, scaled=True))
                continue
            if len(row) % 2 == 0:
                raise InputError(
                    f"{files[name]} has a line of {len(row)} numbers, expected a class and pairs of x and y"
                )
            shapes.append(
                Shape(_yolo_class(row[0], files[name]), (np.array(row[1:]).reshape(-1, 2),), scaled=True)
            )
            highest = max(highest, int(row[0]))
    if boxes and all(shape.crowd for shapes in outlines.shapes.values() for shape in shapes):
        raise InputError(
            f"{folder}/*.txt hold boxes (five numbers a line), and segmentation needs outlines; draw these first"
        )
    if boxes:
        outlines.said.append(_boxes_said(boxes))
    outlines.names = _yolo_names(files)
    if len(outlines.names) <= highest:
        if outlines.names:
            outlines.notes.append(
                f"{len(outlines.names)} names are listed, and the outlines have classes up to {highest}"
            )
        outlines.names += [f"class {i}" for i in range(len(outlines.names), highest + 1)]
    return outlines


def _yolo_class(number: float, path: Path) -> int:
    if number > 10_000:
        raise InputError(f"{path} has an object of class {number:.0f}, expected a class from 0 to 10000")
    return int(number)


def _yolo_names(files: Mapping[PurePath, Path]) -> list[str]:
    """The classes that data.yaml, obj.names or classes.txt beside the outlines list."""
    listed: dict[Path, list[str]] = {}
    for name, path in sorted(files.items(), key=lambda one: len(one[0].parts)):
        if name.suffix.lower() not in (".yaml", ".yml", ".names") and name.name != "classes.txt":
            continue
        try:
            if path.stat().st_size > 2**20:
                continue
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        rows = [line.strip() for line in text.splitlines() if line.strip()]
        if name.suffix.lower() in (".yaml", ".yml"):
            if not re.search(r"^names[ \t]*:", text, re.MULTILINE):
                continue
            listed[path] = rows = _names_of_yaml(text, path)
            if rows != next(iter(listed.values())):
                raise InputError(
                    f"{next(iter(listed))} and {path} list different names; keep the one that belongs to the outlines"
                )
            continue
        if (
            rows
            and all(row.isprintable() and len(row) <= 200 for row in rows)
            and len(set(rows)) == len(rows)
            and not listed
        ):
            return rows
    return next(iter(listed.values()), [])


_NAME = r"""(?:'(?P<single>[^'\\]*)'|"(?P<double>[^"\\]*)"|(?P<plain>[^\s'"\[\]{},:#&*!|>%@`-][^'"\[\]{},:#]*?))"""
_KEY = r"(?P<key>\d{1,5})\s*:\s+"
_BRACKETED = re.compile(rf"\s*{_NAME}\s*(?:,|$)")
_BRACED = re.compile(rf"\s*{_KEY}{_NAME}\s*(?:,|$)")
_LISTED = re.compile(rf"\s*-\s+{_NAME}\s*(?:\s#.*)?")
_NUMBERED = re.compile(rf"\s+{_KEY}{_NAME}\s*(?:\s#.*)?")


def _names_of_yaml(text: str, path: Path) -> list[str]:
    """What stands under `names:`, by its numbers: a list in brackets or lines with a dash, or numbers with names in
    braces or lines. Raises InputError for anything else: the rest of YAML is none of ours."""
    head = re.search(r"^names[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
    assert head is not None
    found: list[re.Match[str] | None] = []
    if head[1].startswith(("[", "{")):
        form, close = (_BRACKETED, "]") if head[1][0] == "[" else (_BRACED, "}")
        start = head.start(1) + 1
        end = text.find(close, start)
        inside = " ".join(text[start : max(end, start)].split())
        at = 0
        while at < len(inside):
            found.append(form.match(inside, at))
            if found[-1] is None:
                break
            at = found[-1].end()
    else:
        for line in text[head.end() :].splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if not line.startswith((" ", "\t", "-")):
                break  # the next key
            found.append(_LISTED.fullmatch(line) or _NUMBERED.fullmatch(line))
        if head[1].strip() and not head[1].lstrip().startswith("#"):
            found.append(None)
    rows: dict[int, str] = {}
    for place, one in enumerate(found):
        key = -1 if one is None else int(one.groupdict().get("key") or place)
        if one is not None and key not in rows:
            rows[key] = (one["single"] or one["double"] or one["plain"] or "").strip()
        else:
            rows[-1] = ""
    names = [rows.get(key, "") for key in range(len(rows))]
    if not all(name and name.isprintable() and len(name) <= 200 for name in names) or len({*names}) < len(
        rows
    ):
        raise InputError(
            f"{path} has names in a form that is not read here; write them as lines such as `  0: cat`, numbered from "
            "0, each name once"
        )
    return names
