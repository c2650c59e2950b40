"""Lists of names, one a line, that say which pictures a split has."""

from __future__ import annotations

from pathlib import Path

from pixelwise.errors import InputError
from pixelwise.files import plain_name


def names_in(path: Path) -> list[str]:
    """The first word of each line that is neither empty nor begins with "#".

    Raises InputError for a file that is no text, and for a name that is more than one of a file, such as ../x: pictures
    are looked for under it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no list of names ({error})") from error
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    for name in names:
        if name != plain_name(name):
            raise InputError(
                f"{path} names the picture {name!r}, expected the plain name of a file in the data set"
            )
    return names
