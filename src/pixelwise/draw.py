"""Label maps as pictures: overlay, colorize, contours, outline, legend, side_by_side, cutout, draw_segmentation_masks.

Letters: h w pixels, k classes, m masks. A picture is uint8 RGB (h, w, 3), a label map is (h, w) file ids of a
LabelSet. The last function speaks torchvision's language, channels first. Arrays in, arrays out; nothing here
imports torch, and a tensor finds it already imported.

A channel of a picture has 256 values and a colour has 256, so blending with a fixed alpha has 65536 answers:
they are computed once, by the definition, and looked up. That is exact for every alpha and needs no compiler; where
there is one already, it does the looking up.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pixelwise.errors import ColorError, InputError
from pixelwise.labels import Color, LabelSet

if TYPE_CHECKING:
    import torch

Picture = NDArray[np.uint8]
MaskColors = Sequence[str | tuple[int, int, int]] | str | tuple[int, int, int] | None

VOID_COLOR: Color = (224, 224, 224)
"""What colorize paints where a label map says "ignore"."""

_WHITE, _INK, _FRAME = (255, 255, 255), (32, 32, 32), (128, 128, 128)
_UNPAINTED = 256  # the row of a blending table for pixels that get no colour
_BAND_PIXELS = 32768  # as many at a time as keep their indices in a core's own cache


def overlay(
    image: Picture,
    labels: NDArray[Any],
    classes: LabelSet,
    *,
    alpha: float = 0.5,
    background: str | bool = True,
    contour: Color | bool = False,
) -> Picture:
    """The picture with each pixel tinted in the colour of its class: uint8 (h, w, 3), a new array.

    image uint8 (h, w, 3); labels (h, w) integer ids of `classes`. A painted channel value is
    floor(value * (1 - alpha) + color * alpha + 0.5) in float64, so alpha 0 shows the photo and 1 the colours.
    Two kinds of pixels stay the photo: those to be ignored, and those of the background. background: True
    means the class named "background" where there is one (Pascal VOC has one; Cityscapes, whose class 0 is
    road, has none); a name means that class; False means none, every class is painted. contour: True draws
    one-pixel white lines between different ids, an RGB triple draws them in that colour.

    Raises InputError for a picture or label map of the wrong shape or type, for an id that no class has
    (naming it and its place), for alpha outside [0, 1] and for an unknown background.
    """
    image = _checked_picture(image)
    rows = _class_rows(labels, classes)
    _check_size(image, rows)
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be in [0, 1], from photo to colour, got {alpha}")
    painted = np.ones(len(classes) + 1, bool)
    painted[-1] = False  # the row of pixels to ignore
    if isinstance(background, str):
        painted[classes.index(background)] = False
    elif background and "background" in classes.names:
        painted[classes.index("background")] = False
    colors = np.array([*classes.colors, VOID_COLOR], np.intp)
    out = np.empty(image.shape, np.uint8)
    _look_up(_rounded_blend(float(alpha)), np.where(painted[:, None], colors, _UNPAINTED), rows, image, out)
    if contour is not False:
        line = _WHITE if contour is True else tuple(contour)
        if len(line) != 3 or not all(0 <= value <= 255 for value in line):
            raise InputError(f"contour must be True, False or an RGB triple in 0..255, got {contour}")
        out.reshape(-1, 3)[np.flatnonzero(contours(rows))] = line
    return out


def colorize(labels: NDArray[Any], classes: LabelSet) -> Picture:
    """The label map in the colours of its classes, uint8 (h, w, 3); pixels to ignore are light grey (224).

    labels (h, w) integer ids of `classes`. Raises InputError for an id that no class has.
    """
    colors = np.array([*classes.colors, VOID_COLOR], np.uint8)
    return colors.take(_class_rows(labels, classes), axis=0)


def contours(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a pixel and its right or lower neighbour have different ids: borders one pixel wide.

    labels (h, w) of any type that can be compared; the answer is bool (h, w).
    """
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise InputError(f"a label map must be (h, w), got an array of shape {labels.shape}")
    border = np.zeros(labels.shape, bool)
    np.not_equal(labels[:, :-1], labels[:, 1:], out=border[:, :-1])
    border[:-1] |= labels[:-1] != labels[1:]
    return border


def outline(
    image: Picture,
    labels: NDArray[Any],
    classes: LabelSet,
    *,
    width_px: int | None = None,
    background: int | None = None,
) -> Picture:
    """The picture with the border of each class drawn inside it in its colour: uint8 (h, w, 3), a new array.

    A pixel is painted when an id other than its own is fewer than width_px + 1 steps away, a step going up, down,
    left or right; where two classes meet, each shows its own colour. Pixels to ignore are not painted, nor those of the
    id `background`. width_px: 1 or more; None is a 200th of the picture's longer side. Raises InputError as `overlay`
    does.
    """
    image = _checked_picture(image)
    rows = _class_rows(labels, classes)
    _check_size(image, rows)
    if width_px is None:
        width_px = max(1, round(max(rows.shape) / 200))
    if width_px < 1:
        raise InputError(f"width_px must be 1 or more, got {width_px}")
    near = contours(rows)
    near[:, 1:] |= rows[:, 1:] != rows[:, :-1]
    near[1:] |= rows[1:] != rows[:-1]
    for _ in range(width_px - 1):
        inner = near.copy()
        near[:, 1:] |= inner[:, :-1]
        near[:, :-1] |= inner[:, 1:]
        near[1:] |= inner[:-1]
        near[:-1] |= inner[1:]
    near &= rows < len(classes)
    if background is not None:
        near &= np.asarray(labels) != background
    out: Picture = image.copy()
    out[near] = np.array(classes.colors, np.uint8)[rows[near]]
    return out


def legend(
    classes: LabelSet, areas: Mapping[str, float] | None = None, *, text_px: int = 18, max_rows: int = 25
) -> Picture:
    """Colour, name and share of each class as a picture, uint8 (h, w, 3), dark on white.

    areas: class name to the fraction of the picture it covers, in [0, 1]; then only classes with more than 0
    are listed, the largest first, with their percentages. Without areas all classes are listed in their
    order. text_px: height of a letter's box in pixels, 6 or more. After max_rows lines a new column begins.

    Raises InputError for a name that is no class or a fraction outside [0, 1].
    """
    if text_px < 6 or max_rows < 1:
        raise InputError(f"legend needs text_px >= 6 and max_rows >= 1, got {text_px} and {max_rows}")
    shares = dict.fromkeys(classes.names, "")
    if areas is not None:
        present = [(name, float(area)) for name, area in areas.items() if area != 0]
        for name, area in present:
            classes.index(name)
            if not 0 < area <= 1:
                raise InputError(f"the area of {name!r} must be a fraction in [0, 1], got {area}")
        present.sort(key=lambda item: -item[1])
        shares = {name: f"{area:.1%}" if area >= 0.0005 else "<0.1%" for name, area in present}
    font, line = _font(text_px), round(text_px * 1.5)
    lines = [(name, " ".join(name.split()), share) for name, share in shares.items()]
    rows = min(max_rows, max(len(lines), 1))
    margin, swatch, space = line // 2, round(text_px * 1.4), round(text_px * 0.6)
    name_width = _widest([text for _, text, _ in lines] or ["no class"], font)
    share_width = _widest([share for *_, share in lines], font)
    column = swatch + space + name_width + (space * 2 + share_width if share_width else 0)
    columns = max(-(-len(lines) // rows), 1)
    size = (2 * margin + columns * column + (columns - 1) * line, 2 * margin + rows * line)
    canvas = Image.new("RGB", size, _WHITE)
    draw = ImageDraw.Draw(canvas)
    for i, (name, text, share) in enumerate(lines):
        x, y = margin + i // rows * (column + line), margin + i % rows * line
        box = (x, y + line // 8, x + swatch - 1, y + line - 1 - line // 8)
        draw.rectangle(box, fill=classes.colors[classes.index(name)], outline=_FRAME)
        draw.text((x + swatch + space, y + line / 2), text, fill=_INK, font=font, anchor="lm")
        draw.text((x + column, y + line / 2), share, fill=_INK, font=font, anchor="rm")
    if not lines:
        draw.text((margin, margin + line / 2), "no class", fill=_INK, font=font, anchor="lm")
    return np.array(canvas)


def side_by_side(
    *images: NDArray[Any], captions: Sequence[str] | None = None, gap_px: int = 8, text_px: int = 18
) -> Picture:
    """Pictures in a row on white, aligned at the top, a caption over each: uint8 (h, w, 3).

    images: uint8 (h, w, 3), (h, w, 4) with alpha, (h, w) grey, or bool (h, w); sizes may differ, none is
    scaled. captions: one line of text for each. Raises InputError for other arrays or counts.
    """
    if not images or (captions is not None and len(captions) != len(images)):
        given = "" if captions is None else f" and {len(captions)} captions"
        raise InputError(
            f"side_by_side needs pictures and a caption for each or none, got {len(images)}{given}"
        )
    if gap_px < 0 or text_px < 6:
        raise InputError(f"side_by_side needs gap_px >= 0 and text_px >= 6, got {gap_px} and {text_px}")
    pictures = [_on_white(image) for image in images]
    texts = [" ".join(text.split()) for text in captions or ()]
    font, top = _font(text_px), round(text_px * 1.5) if texts else 0
    widths = [picture.width for picture in pictures]
    if texts:
        widths = [max(width, _widest([text], font)) for width, text in zip(widths, texts, strict=True)]
    height = top + max(picture.height for picture in pictures)
    canvas = Image.new("RGB", (sum(widths) + gap_px * (len(widths) - 1), height), _WHITE)
    draw = ImageDraw.Draw(canvas)
    x = 0
    for i, (picture, width) in enumerate(zip(pictures, widths, strict=True)):
        if texts:
            draw.text((x, top / 2), texts[i], fill=_INK, font=font, anchor="lm")
        canvas.paste(picture, (x, top))
        x += width + gap_px
    return np.array(canvas)


def cutout(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """The part of a picture under a mask, RGBA uint8 (h, w, 4): opaque in the mask, all zeros outside.

    image uint8 (h, w, 3); mask bool (h, w). The photo outside is gone, not hidden: what is cut away cannot be
    read from a saved file. Raises InputError for other shapes or types.
    """
    image, mask = _checked_picture(image), np.asarray(mask)
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        raise InputError(f"mask must be bool {image.shape[:2]}, as large as the picture, got {_what(mask)}")
    out = np.empty((*mask.shape, 4), np.uint8)
    np.multiply(image, mask[..., None], out=out[..., :3])
    np.multiply(mask, np.uint8(255), out=out[..., 3])
    return out


@overload
def draw_segmentation_masks(
    image: torch.Tensor, masks: torch.Tensor, alpha: float = 0.8, colors: MaskColors = None
) -> torch.Tensor: ...


@overload
def draw_segmentation_masks(
    image: NDArray[Any], masks: NDArray[np.bool_], alpha: float = 0.8, colors: MaskColors = None
) -> NDArray[Any]: ...


def draw_segmentation_masks(image: Any, masks: Any, alpha: float = 0.8, colors: MaskColors = None) -> Any:
    """torchvision.utils.draw_segmentation_masks with the same pixels, errors and warning, faster.

    image (3, h, w), uint8 in [0, 255] or float in [0, 1], a torch tensor on any device or a NumPy array;
    masks (m, h, w) or (h, w), bool, of the same kind. alpha 0 shows the image, 1 the masks. colors: a Pillow
    colour string or an RGB tuple for all masks, or a list of at least m of them; None deals m fixed colours,
    the first black. Pixels in more than one mask turn black. The result has the image's shape, type and
    device and no gradient. uint8 results are truncated, not rounded, and blended once more with themselves
    outside the masks: with some alphas the photo loses one grey level there, as it does in torchvision.

    NumPy arrays are blended by the same formula in float32 for uint8 images, in the image's type for others.
    Without any mask the image itself comes back, with a UserWarning.

    Raises TypeError for an image or masks of another kind, InputError (a ValueError) for wrong types, shapes,
    colour names and too few colours, ColorError (also a RuntimeError) for a colour that is not three numbers
    or does not fit into uint8.
    """
    is_tensor = _is_tensor(image)
    _check_masks(image, masks, is_tensor)
    if masks.ndim == 2:
        masks = masks[None]
    if masks.shape[0] == 0:
        warnings.warn("there are no masks to draw; the image is returned as it is", UserWarning, stacklevel=2)
        return image
    alpha = float(0.0 + alpha)  # a TypeError for text
    if is_tensor:
        return _draw_on_tensor(image, masks, alpha, colors)
    is_uint8 = image.dtype == np.uint8
    palette = _mask_colors(colors, len(masks), is_uint8)
    rows = _mask_rows(masks)
    if is_uint8:
        out = np.empty_like(image)
        _look_up_planes(_truncated_blend(np.arange(256, dtype=np.float32), alpha), palette, rows, image, out)
        return out
    painted = np.where(rows == 0, image, palette.T.astype(image.dtype)[:, rows])
    return image * (1 - alpha) + painted * alpha


# ---------------------------------------------------------------------------------------------- look-up


def _look_up(
    table: NDArray[np.uint8], palette: NDArray[np.intp], rows: NDArray[Any], image: Picture, out: Picture
) -> None:
    """out[y, x, c] = table[palette[rows[y, x], c], image[y, x, c]], some rows at a time to stay in the cache.

    table (257, 256): colour value, or 256 for none, and picture value to the blend. palette (k, c) of colour
    values; rows (h, w) in [0, k); image and out (h, w, c).
    """
    plain = all(array.flags.carray for array in (rows, image, out))
    if "numba" in sys.modules and plain and rows.dtype == np.uint8 == image.dtype and image.shape[2] == 3:
        from pixelwise import kernels

        kernels.in_bands(kernels.blend, len(rows), table, palette, rows, image, out)
        return
    starts = palette * 256
    flat = table.reshape(-1)
    height, width = rows.shape
    band = max(1, _BAND_PIXELS // max(width, 1))
    for y in range(0, height, band):
        index = starts.take(rows[y : y + band], axis=0)
        index += image[y : y + band]
        flat.take(index, out=out[y : y + band], mode="clip")  # "raise" would fill a copy of `out` first


def _look_up_planes(
    table: NDArray[np.uint8],
    palette: NDArray[np.intp],
    rows: NDArray[Any],
    image: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """_look_up for image and out (c, h, w)."""
    for channel, (plane, out_plane) in enumerate(zip(image, out, strict=True)):
        _look_up(table, palette[:, [channel]], rows, plane[..., None], out_plane[..., None])


@lru_cache(maxsize=8)
def _rounded_blend(alpha: float) -> NDArray[np.uint8]:
    """(257, 256) uint8: colour c over picture value v, rounded to nearest, halves up; row 256 is v itself."""
    values = np.arange(256, dtype=np.float64)
    blend = np.floor(values * (1 - alpha) + values[:, None] * alpha + 0.5)
    return np.concatenate([blend, values[None]]).astype(np.uint8)


def _truncated_blend(values: NDArray[Any], alpha: float) -> NDArray[np.uint8]:
    """(257, 256) uint8: colour c over picture value v as torchvision has it; row 256 blends v with itself."""
    blend = values * (1 - alpha) + values[:, None] * alpha
    itself = values * (1 - alpha) + values * alpha
    whole: NDArray[np.uint8] = np.concatenate([blend, itself[None]]).astype(np.int64).astype(np.uint8)
    return whole


def _check_size(image: Picture, rows: NDArray[Any]) -> None:
    if rows.shape != image.shape[:2]:
        raise InputError(
            f"labels must have the picture's height and width {image.shape[:2]}, got {rows.shape}; "
            "resize the label map with nearest neighbour"
        )


def _class_rows(labels: NDArray[Any], classes: LabelSet) -> NDArray[Any]:
    """Ids (h, w) to class indices, and to k where the id says ignore; InputError for any other id."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise InputError(f"a label map must be (h, w) integers, got {_what(labels)}")
    if labels.size == 0:
        return labels
    k = len(classes)
    lowest = 0 if labels.dtype.kind == "u" else labels.min()
    highest = labels.max()
    if classes.plain and lowest >= 0 and highest < k:
        return labels
    if lowest < 0 or highest > 65535:  # a table would be large, or not reached by the id
        return classes.to_indices(labels, ignore_index=k)
    table = np.full(65536, k + 1, np.min_scalar_type(k + 1))
    ids = np.array(classes.ids)
    near = ids < len(table)
    table[ids[near]] = np.flatnonzero(near)
    if classes.ignore_id is not None and classes.ignore_id < len(table):
        table[classes.ignore_id] = k
    rows: NDArray[Any] = table.take(labels)
    if rows.max() > k:
        classes.to_indices(labels)  # says which id, and where
    return rows


# ------------------------------------------------------------------------------------ torchvision's masks


def _draw_on_tensor(image: torch.Tensor, masks: torch.Tensor, alpha: float, colors: Any) -> torch.Tensor:
    import torch

    image = image.detach()
    is_uint8 = image.dtype == torch.uint8
    palette = _mask_colors(colors, len(masks), is_uint8)
    if is_uint8 and image.device.type == "cpu":
        table = _truncated_blend(torch.arange(256.0).numpy(), alpha)  # in torch's default float type
        array = image.numpy()
        out = np.empty_like(array)
        _look_up_planes(table, palette, _mask_rows(masks.cpu().numpy()), array, out)
        return torch.from_numpy(out)
    if image.device.type == "cpu":
        rows = torch.from_numpy(_mask_rows(masks.cpu().numpy()).astype(np.int64))
    else:
        rows = _mask_rows_on_device(masks.to(image.device))
    row_colors = torch.from_numpy(palette).to(image.device, image.dtype)
    painted = torch.where(rows == 0, image, row_colors.T[:, rows])
    return (image * (1 - alpha) + painted * alpha).to(image.dtype)


def _mask_rows(masks: NDArray[np.bool_]) -> NDArray[Any]:
    """Masks (m, h, w) to (h, w): 0 outside all, i + 1 in mask i alone, m + 1 in several."""
    m, height, width = masks.shape
    dtype = np.min_scalar_type(m + 1)
    rows = np.zeros((height, width), dtype)
    band = max(1, _BAND_PIXELS // max(width, 1))
    for y in range(0, height, band):
        part = rows[y : y + band]
        count, numbered = np.zeros_like(part), np.empty_like(part)
        for i in range(m):
            mask = masks[i, y : y + band].view(np.uint8)
            count += mask
            part += np.multiply(mask, dtype.type(i + 1), out=numbered)  # wraps only where count is above 1
        part[count > 1] = m + 1
    return rows


def _mask_rows_on_device(masks: torch.Tensor) -> torch.Tensor:
    """_mask_rows for a tensor on an accelerator, int64: two additions per mask, no waiting for the device."""
    import torch

    count = torch.zeros(masks.shape[1:], dtype=torch.int32, device=masks.device)
    rows = torch.zeros_like(count)
    for i, mask in enumerate(masks):
        count += mask
        rows.add_(mask, alpha=i + 1)
    return rows.masked_fill_(count > 1, len(masks) + 1).long()


def _mask_colors(colors: Any, count: int, is_uint8: bool) -> NDArray[Any]:
    """The colours of rows 0 .. m + 1 of _mask_rows, (m + 2, 3): intp for uint8 images, else float64.

    Row 0 is not painted, row m + 1 is black. The fixed colours of None are multiples of three numbers, modulo
    255, and are divided by 255 in float32; given ones in float64.
    """
    if colors is None:
        values = np.arange(count)[:, None] * np.array([2**25 - 1, 2**15 - 1, 2**21 - 1]) % 255
        scaled = (values.astype(np.float32) / np.float32(255)).astype(np.float64)
    else:
        values = _parsed_colors(colors, count)
        scaled = values / 255
    if not is_uint8:
        return np.concatenate([np.zeros((1, 3)), scaled, np.zeros((1, 3))])
    if (np.abs(values) > 255).any():
        raise ColorError(
            f"colors for a uint8 image must be in 0..255, got {values[_first(np.abs(values) > 255)]:g}"
        )
    wrapped = values.astype(np.int64).astype(np.uint8)  # fractions are cut off, -1 is 255
    return np.concatenate([[[_UNPAINTED] * 3], wrapped, [[0, 0, 0]]]).astype(np.intp)


def _parsed_colors(colors: Any, count: int) -> NDArray[np.float64]:
    """One colour for all masks or a list of them, as float64 (m, 3), not scaled."""
    if isinstance(colors, tuple) and len(colors) != 3:
        raise InputError(
            f"a tuple in colors must be one RGB triple, got {colors}; use a list for several colours"
        )
    if isinstance(colors, (tuple, str)):
        colors = [colors] * count
    if not isinstance(colors, list):
        raise InputError(f"colors must be a colour name, an RGB tuple or a list of them, got {colors!r}")
    if len(colors) < count:
        raise InputError(f"colors must hold a colour for each of the {count} masks, got {len(colors)}")
    triples = np.empty((len(colors), 3))
    for triple, color in zip(triples, colors, strict=True):
        try:
            numbers = np.asarray(ImageColor.getrgb(color) if isinstance(color, str) else color, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{color!r} is no colour: {error}; use a name, '#rrggbb' or (r, g, b)") from None
        if numbers.shape not in ((3,), (1,)):
            raise ColorError(f"a colour must be three numbers, red, green and blue, got {color!r}")
        triple[:] = numbers
    return triples[:count]


def _check_masks(image: Any, masks: Any, is_tensor: bool) -> None:
    """The conditions of draw_segmentation_masks, in torchvision's order."""
    if not (is_tensor or isinstance(image, np.ndarray)):
        raise TypeError(f"image must be a torch tensor or a NumPy array, got {type(image).__name__}")
    if is_tensor != _is_tensor(masks) or not (is_tensor or isinstance(masks, np.ndarray)):
        kind = "a torch tensor" if is_tensor else "a NumPy array"
        raise TypeError(f"masks must be {kind}, as the image is, got {type(masks).__name__}")
    floats = image.is_floating_point() if is_tensor else image.dtype.kind == "f"
    if not floats and str(image.dtype).removeprefix("torch.") != "uint8":
        raise InputError(f"image must be uint8 in [0, 255] or float in [0, 1], got {image.dtype}")
    if image.ndim != 3:
        raise InputError(
            f"image must be one picture (3, h, w), got {tuple(image.shape)}; draw a batch one by one"
        )
    if image.shape[0] != 3:
        raise InputError(f"image must be RGB, (3, h, w), got {tuple(image.shape)}")
    if masks.ndim not in (2, 3):
        raise InputError(f"masks must be (h, w) or (masks, h, w), got {tuple(masks.shape)}")
    if str(masks.dtype).removeprefix("torch.") != "bool":
        raise InputError(f"masks must be bool, got {masks.dtype}; compare, as in labels == 3")
    size_hw, image_hw = tuple(masks.shape[-2:]), tuple(image.shape[-2:])
    if size_hw != image_hw:
        raise InputError(f"masks must have the image's height and width {image_hw}, got {size_hw}")


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


# ------------------------------------------------------------------------------------------- small parts


@cache
def _font(text_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=text_px)


def _widest(texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return max((int(np.ceil(font.getlength(text))) for text in texts), default=0)


def _checked_picture(image: Any) -> Picture:
    picture: Picture = np.asarray(image)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"a picture must be uint8 RGB (h, w, 3), got {_what(picture)}")
    return picture


def _on_white(image: Any) -> Image.Image:
    """uint8 (h, w, 3), (h, w, 4) or (h, w), or bool (h, w), as an opaque RGB picture."""
    image = np.asarray(image)
    if image.ndim == 2 and image.dtype == bool:
        image = image * np.uint8(255)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise InputError(
            f"a picture must be uint8 (h, w, 3), (h, w, 4) or (h, w), or bool (h, w), got {_what(image)}"
        )
    if image.size == 0:
        raise InputError(f"a picture must have at least one pixel, got shape {image.shape}")
    picture = Image.fromarray(image)
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGB", picture.size, _WHITE)
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _what(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def _first(found: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(found)[0])
