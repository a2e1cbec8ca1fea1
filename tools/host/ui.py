# SPDX-License-Identifier: GPL-2.0
"""Messages, errors and exit statuses of all tools.

Progress goes to standard error, so that a command's output can be piped.
"""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, overload

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_MAY_NOT = (errno.EACCES, errno.EPERM)
_TOP = Path(__file__).resolve().parents[2]


class UserError(Exception):
    """An error that the user can correct.

    The text names the value found, the limit or expectation that it violates, and
    what to do.  Tools print it without a traceback and exit with status 2.
    """


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Print what begins and, if it takes 2 s or more, how long it took."""
    say(f"  {text} ...")
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    if seconds >= 2:
        say(f"  {text}: done in {seconds:.0f} s")


@overload
def number(name: str, default: int, least: int = 1, most: int = 10 ** 12,
           what: str = "a whole number") -> int: ...


@overload
def number(name: str, default: None = None, least: int = 1, most: int = 10 ** 12,
           what: str = "a whole number") -> int | None: ...


def number(name: str, default: int | None = None, least: int = 1, most: int = 10 ** 12,
           what: str = "a whole number") -> int | None:
    """Return the number in an environment variable, or the default.

    Raises UserError unless the value is a number from least to most.
    """
    text = os.environ.get(name)
    if not text:
        return default
    # int() itself raises an error for a text that is long enough.
    if not text.isdecimal() or len(text) > len(str(most)) \
            or not least <= int(text) <= most:
        raise UserError(f"{name} is {text[:40]!r}; it must be {what} from {least} "
                        f"to {most}")
    return int(text)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> str:
    """Return the message about a path in the repository that cannot be written."""
    if error.errno in NO_SPACE:
        advice = "free some space, or move the repository to a larger disk"
    elif error.errno in _MAY_NOT:
        advice = (f"make it writable for user id {os.geteuid()}, or work in a clone of "
                  "your own")
    else:
        advice = "correct that, or work in a clone of your own"
    # An error of shutil has no strerror.
    return f"cannot write to {os.fspath(path)}: {error.strerror or error}; {advice}"


def _cannot_access(error: OSError) -> str:
    """Return the message about a file that cannot be read or written.

    The exception does not show which.  In the repository, a file that can be read,
    or that does not exist, is one to be written.
    """
    path = Path(os.fsdecode(error.filename)).absolute()
    if path.is_relative_to(_TOP):
        place = path if os.path.lexists(path) else path.parent
        if os.access(place, os.R_OK):
            return cannot_write(path, error)
    advice = "" if error.errno == errno.EROFS else \
        f"; give user id {os.geteuid()} access to it"
    return f"cannot access {path}: {error.strerror}{advice}"


def main(function: Callable[[], int | None]) -> NoReturn:
    """Run a tool's main function and exit with the status that it returns.

    A UserError becomes one message and exit status 2, and so does a file that the
    user may not read or write.  An interrupt from the keyboard becomes exit status 130.
    """
    try:
        sys.exit(function())
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in (*_MAY_NOT, errno.EROFS) \
                or not isinstance(error.filename, (str, bytes, os.PathLike)):
            raise
        say(f"error: {_cannot_access(error)}")
        sys.exit(2)
