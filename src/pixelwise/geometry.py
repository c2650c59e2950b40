"""Geometry: where the voxels of a volume lie in the body. Plain numbers; only letters of orientation need nibabel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError

LETTERS = ("RL", "AP", "SI")
"""Right or left, anterior or posterior, superior or inferior: an orientation names one of each pair."""

SHEAR = 1e-3
"""Cosine between two axes from which on they are not at right angles; files hold float32."""


class Turn(NamedTuple):
    """How the last three axes of an array change places. flipped: of the axes as they were; order: where each new axis
    comes from."""

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """The array (..., d, h, w) as it is seen after the turn: a view, through which it can also be written."""
        lead = values.ndim - 3
        ways = tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)
        index: tuple[Any, ...] = (..., *ways)
        turned: NDArray[Any] = values[index].transpose(*range(lead), *(lead + axis for axis in self.order))
        return turned

    def of_sides(self, sides: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        """Sizes or spacings, one an axis, after the turn."""
        first, second, third = (sides[axis] for axis in self.order)
        return first, second, third


AS_IT_IS = Turn((0, 1, 2), (False, False, False))


@dataclass(frozen=True, eq=False)
class Geometry:
    """spacing: millimetres from voxel to voxel along (slices, rows, columns), the axes of an array (d, h, w).

    affine: float64 (4, 4), from (column, row, slice, 1), the indexes of the last axis first, as in the files, to
    millimetres to the right, to the front and to the top (RAS+); None where nobody has said how the volume lies.
    header: nibabel's header of the NIfTI file that it came from, which label maps of it keep; else None.
    """

    spacing: tuple[float, float, float]
    affine: NDArray[np.float64] | None = None
    header: Any = None

    def __post_init__(self) -> None:
        spacing = tuple(float(side) for side in self.spacing)
        if len(spacing) != 3 or not (np.isfinite(spacing).all() and min(spacing) > 0):
            raise InputError(
                f"spacing is 3 positive numbers of millimetres (slices, rows, columns), got {self.spacing}"
            )
        object.__setattr__(self, "spacing", spacing)
        if self.affine is not None:
            object.__setattr__(self, "affine", _checked(self.affine))

    @classmethod
    def of(cls, affine: Any, header: Any = None) -> Geometry:
        """With the spacing of an affine. InputError for one that is singular or not finite."""
        affine = _checked(affine)
        column, row, slices = (float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
        return cls((slices, row, column), affine, header)

    @property
    def voxel_mm3(self) -> float:
        """The volume of a voxel in cubic millimetres."""
        if self.affine is None:
            return float(np.prod(self.spacing))
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def sheared(self) -> bool:
        """Whether the axes are not at right angles."""
        if self.affine is None:
            return False
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR)

    @property
    def orientation(self) -> str | None:
        """Where columns, rows and slices grow towards, such as "RAS", of an oblique volume nearly; None without an
        affine. Raises MissingExtraError without nibabel."""
        if self.affine is None:
            return None
        return "".join(_nibabel().aff2axcodes(self.affine))

    def turn_to(self, orientation: str) -> Turn:
        """The turn after which columns, rows and slices grow towards those letters. The affine must be there."""
        assert self.affine is not None
        tools = _nibabel()
        change = tools.ornt_transform(
            tools.io_orientation(self.affine), tools.axcodes2ornt(tuple(check_orientation(orientation)))
        )
        order, flipped = np.argsort(change[:, 0]), change[:, 1] < 0  # of (column, row, slice)
        return Turn(
            (2 - int(order[2]), 2 - int(order[1]), 2 - int(order[0])),
            (bool(flipped[2]), bool(flipped[1]), bool(flipped[0])),
        )


def check_orientation(letters: str) -> str:
    """The letters in capitals; InputError for what is no orientation."""
    found = letters.upper() if isinstance(letters, str) else ""
    if len(found) != 3 or any(sum(letter in pair for letter in found) != 1 for pair in LETTERS):
        raise InputError(
            "an orientation is three letters, one of R and L, one of A and P, one of S and I: where columns, rows and "
            f"slices grow towards, such as RAS; got {letters!r:.60}"
        )
    return found


def affine_of(orientation: str, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """The affine of a volume that lies so, the middle of its first voxel at the origin. spacing: (d, h, w) in mm."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (letter, side) in enumerate(
        zip(check_orientation(orientation), reversed(spacing), strict=True)
    ):
        row = next(i for i, pair in enumerate(LETTERS) if letter in pair)
        affine[row, column] = side if letter in "RAS" else -side
    return affine


def _checked(affine: Any) -> NDArray[np.float64]:
    try:
        found = np.array(affine, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.shape != (4, 4) or not np.isfinite(found).all() or not np.allclose(found[3], (0, 0, 0, 1)):
        raise InputError(f"an affine is finite numbers (4, 4), the last row 0 0 0 1, got {in_words(found)}")
    sides = np.linalg.norm(found[:3, :3], axis=0)
    if min(sides) == 0 or abs(np.linalg.det(found[:3, :3] / np.where(sides == 0, 1, sides))) < 1e-6:
        raise InputError(
            "the affine is singular, it puts all voxels into one plane: "
            f"{in_words(found[:3, :3])}; mend it in the program that wrote the scan"
        )
    return found


def in_words(matrix: NDArray[np.float64]) -> str:
    """Its numbers on one line, for sentences."""
    return str(np.array(matrix, np.float64).round(4).tolist())[:200]


def _nibabel() -> Any:
    try:
        from nibabel import orientations
    except ModuleNotFoundError as error:
        raise MissingExtraError("turning volumes", "volume") from error
    return orientations
