# SPDX-License-Identifier: GPL-2.0
"""Messages, errors and exit statuses of all tools.

Progress goes to standard error, so that a command's output can be piped.
"""

import contextlib
import os
import sys
import time


class UserError(Exception):
    """An error that the user can correct.

    The text names the value found, the limit or expectation that it violates, and
    what to do.  Tools print it without a traceback and exit with status 2.
    """


def say(text):
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text):
    """Print what begins and, if it takes 2 s or more, how long it took."""
    say(f"  {text} ...")
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    if seconds >= 2:
        say(f"  {text}: done in {seconds:.0f} s")


def number(name, default=None, least=1, most=10 ** 12, what="a whole number"):
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


def main(function):
    """Run a tool's main function and exit with the status that it returns.

    A UserError becomes one message and exit status 2, an interrupt from the
    keyboard exit status 130.
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
