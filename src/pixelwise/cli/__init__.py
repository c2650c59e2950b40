"""The command line. A command only parses and calls; errors become one sentence and an exit code.

Exit codes: 0 done, 1 failure, 2 bad input. `--debug` shows the traceback instead of the sentence.
"""

from __future__ import annotations

import gc
import sys
import warnings
from contextlib import nullcontext
from typing import Any

from pixelwise.errors import PixelwiseError, PixelwiseWarning
from pixelwise.terminal import libraries_silenced, note, print_any_name


def main() -> None:
    """The entry point `pixelwise`."""
    print_any_name()
    debug = "--debug" in sys.argv
    show = warnings.showwarning

    def warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, PixelwiseWarning) and not debug:
            note(message)
        else:
            show(message, category, *where, **more)

    warnings.showwarning = warn
    if sys.argv[1:2] == ["segment"]:
        gc.disable()  # until all is imported, which leaves nothing to collect (`cli.segment`)
    try:
        from pixelwise.cli.app import app

        # What has processes of its own says there what went wrong.
        has_processes = {"train", "serve"} & set(sys.argv[1:2])
        with nullcontext() if debug or has_processes else libraries_silenced():
            app()
    except PixelwiseError as error:
        if debug:
            raise
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except SystemExit as error:
        if isinstance(getattr(error.__context__, "__cause__", None), KeyboardInterrupt):  # as Typer turns it
            note("interrupted")
        raise
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        fail(f"{type(error).__name__}: {error} (this is a bug or an unforeseen case; --debug shows where)", 1)
    finally:
        gc.enable()


def fail(sentence: str, exit_code: int) -> None:
    note(sentence)
    sys.exit(exit_code)
