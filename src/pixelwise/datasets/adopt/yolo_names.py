"""The names of YOLO's classes: data.yaml, obj.names or classes.txt beside the outlines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from pixelwise.errors import InputError


def yolo_names(files: Mapping[PurePath, Path]) -> list[str]:
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
