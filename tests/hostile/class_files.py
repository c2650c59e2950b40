"""Lists of classes (classes.txt) in the folder of a data set, which `check` opens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hostile.cases import Case, Place, Refused, Right, accepted, encoded, flat, typed

MASK = np.zeros((12, 16), np.uint8)
MASK[:, 9:] = 1


def data_set(place: Place, mask: np.ndarray = MASK) -> None:
    for i in range(3):
        place.write(f"data/images/{i}.png", encoded(flat((i, 0, 0)), "PNG"))
        place.write(f"data/masks/{i}.png", encoded(mask, "PNG"))


def _cases() -> Iterator[Case]:
    refused = Refused(r"classes\.txt")

    def one(name: str, text: str | bytes, right: Right = refused) -> Case:
        def make(place: Place) -> None:
            data_set(place)
            place.write("data/classes.txt", text)

        return Case(name, make, typed("check", "data", "--json"), right)

    good = accepted('"safe": true')
    yield one("names alone", "ground\nroad\n", good)
    yield one("ids and names", "0 ground\n1, road\n2: sky\n", good)
    yield one("the ends of lines of Windows", "ground\r\nroad\r\n", good)
    yield one("the mark of a byte order", b"\xef\xbb\xbfground\nroad\n", good)
    yield one("names of every language", "ground\n道路\nнебо\n", good)
    yield one("empty lines between", "\n\nground\n\n\nroad\n\n", good)
    yield one("the ends of pages", "ground\froad\x0bsky\n", good)
    yield one("nothing in it", "")
    yield one("spaces alone", "  \n \n")
    yield one("one name twice", "ground\nground\n")
    yield one("one id twice", "0 ground\n0 road\n")
    yield one("another byte than text has", b"gr\xfcn\nroad\n")
    yield one("of two bytes a letter", "ground\nroad\n".encode("utf-16"))
    yield one("an id beyond any number", f"{10**400} ground\n1 road\n")
    yield one("an id of 2^62", f"0 ground\n{2**62} road\n")
    yield one("an id of five thousand digits", "9" * 5000 + " ground\n")
    yield one("an id of two billion", "0 ground\n2000000000 road\n")
    yield one("a picture", encoded(flat((1, 2, 3)), "PNG"))
    yield one("control characters", "ground\x00\nro\x1b[31mad\n")
    yield one("a million names", "\n".join(map(str, range(1_000_000))))
    yield one("a name of a megabyte", "a" * 1_000_000 + "\nroad\n")
    yield one("void alone", "void\n")
    yield Case(
        "a folder",
        lambda p: (data_set(p), (p.folder / "data/classes.txt").mkdir()),
        typed("check", "data", "--json"),
        good,
    )
    yield Case("a link in a circle", _circle, typed("check", "data", "--json"), good)
    yield Case("a link that leads outside", _outside, typed("check", "data"), refused)
    yield Case(
        "a label that is none of them",
        lambda p: (data_set(p, MASK + 7), p.write("data/classes.txt", "a\nb\n")),
        typed("check", "data"),
        accepted("not safe to train"),
    )


def _circle(place: Place) -> None:
    data_set(place)
    (place.folder / "data/classes.txt").symlink_to("classes.txt")


def _outside(place: Place) -> None:
    data_set(place)
    (place.outside / "secret.txt").write_bytes(b"\xff\xfe secret")
    (place.folder / "data/classes.txt").symlink_to(place.outside / "secret.txt")


CASES = list(_cases())
