# SPDX-License-Identifier: GPL-2.0
"""What every tool here says to a person, and how it fails.

Progress goes to standard error, so that a command's output can be piped.
"""

import contextlib
import os
import sys
import time


class UserError(Exception):
    """Something the person at the keyboard can mend.

    The text names the value that was found, the limit or expectation it
    broke, and the way out.  Tools print it without a traceback and exit
    with status 2.
    """


def say(text):
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text):
    """Announce a piece of work and, once it is done, how long it took."""
    say(f"  {text} ...")
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    if seconds >= 2:
        say(f"  {text}: done in {seconds:.0f} s")


def number(name, default=None, least=1, most=10 ** 12, what="a whole number"):
    """Return the number that a variable of the environment has, or the default.

    Raises UserError if what it has is no number from least to most.
    """
    text = os.environ.get(name)
    if not text:
        return default
    # Python itself refuses texts that are long enough.
    if not text.isdecimal() or len(text) > len(str(most)) \
            or not least <= int(text) <= most:
        raise UserError(f"{name} is {text[:40]!r}; it is {what} from {least} to "
                        f"{most}")
    return int(text)


def main(function):
    """Run a tool's main function and exit with what it returns.

    A UserError becomes one clear message and exit status 2, an interrupt
    from the keyboard exit status 130.
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
