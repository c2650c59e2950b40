"""Loops compiled by numba on first use, kept from one process to the next. Importing this imports numba.

What is kept is machine code in pickles, so it lies in a folder that only this user can write (`kernels` in
`caches.cache_dir`, mode 0700), or in the one that NUMBA_CACHE_DIR names, which is taken as it is. Each file holds the
code of one loop for one set of types and its SHA-256, and its name says of which sources, types, processor and version
of numba; so processes that write at once do not disturb each other, and a file that is not what was written is
discarded, with a warning that names it, and made again. numba's own cache has an index for the files of a loop, which
two processes may overwrite for each other, and checks nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba import njit
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from pixelwise.caches import cache_dir, private_folder
from pixelwise.errors import OutputError, PixelwiseWarning
from pixelwise.files import writing

ENDING = ".nbc"


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: numba's njit without the GIL, the machine code kept. options: of njit."""
    if function is None:
        return partial(compiled, **options)
    dispatcher = njit(nogil=True, **options)(function)
    if hasattr(dispatcher, "enable_caching"):  # with NUMBA_DISABLE_JIT it is the function itself
        dispatcher._cache = _Kept(function)
    return dispatcher


class _Kept(NullCache):  # type: ignore[misc]  # numba has no types
    """The machine code of one function on disk: what numba asks when it needs it, and tells when it has made it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        try:
            path = self._path(sig, target_context.codegen())
            content = path.read_bytes()
        except OSError:
            return None
        try:
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                raise ValueError("its SHA-256 is another")
            return CompileResult._rebuild(target_context, *pickle.loads(content[32:]))
        except Exception as error:  # whatever numba and LLVM meet in a file that is not theirs
            with suppress(OSError):
                path.unlink()
            warnings.warn(
                f"{path} is not the compiled loop that was written ({error}); it is discarded, and compiled again",
                PixelwiseWarning,
                stacklevel=2,
            )
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.lifted or data.library.has_dynamic_globals:
            return
        content = dumps(data._reduce())
        try:
            with writing(self._path(sig, data.codegen)) as temporary:
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
        except (OSError, OutputError) as error:
            _warn_once(getattr(error, "strerror", None) or str(error))

    def _path(self, sig: Any, codegen: Any) -> Path:
        """Where the code for these types lies; OSError where it cannot be kept."""
        function = self._function
        source = "".join(_source(file) for file in sorted(_files(sys.modules[function.__module__])))
        key = (numba.__version__, sys.version_info[:2], source, repr(sig), codegen.magic_tuple())
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        return _folder() / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}{ENDING}"


def _folder() -> Path:
    chosen = numba.config.CACHE_DIR
    return Path(chosen) / "pixelwise" if chosen else private_folder(cache_dir() / "kernels")


@cache
def _files(module: ModuleType) -> frozenset[str]:
    """The file of a module of loops, and those of the loops and of the constants that it takes from elsewhere in the
    package: all of them are in the machine code."""
    files = {inspect.getfile(module)}
    for value in vars(module).values():
        other = value if isinstance(value, ModuleType) else None
        if hasattr(value, "py_func"):
            other = sys.modules[value.py_func.__module__]
        if other is not None and other is not module and other.__name__.startswith("pixelwise."):
            files |= _files(other)
    return frozenset(files)


@cache
def _source(file: str) -> str:
    """SHA-256 of the file that a loop stands in; OSError where that cannot be read."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@cache
def _warn_once(why: str) -> None:
    warnings.warn(
        f"compiled loops cannot be kept ({why}), so each process spends some seconds on compiling them; name a folder "
        "of your own in PIXELWISE_CACHE",
        PixelwiseWarning,
        stacklevel=3,
    )
