"""Mistakes of the user: shown in words, without a traceback."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """What was given cannot be used; the message says what is allowed and what to do next."""


class Interrupted(Exception):  # noqa: N818  it is none
    """A signal ended what was under way; what had finished is stored.

    Args:
        exit_code: what the process is to end with.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"interrupted ({exit_code})")
        self.exit_code = exit_code


def unknown(kind: str, given: str, allowed: Iterable[str], *, where: str = "", prefix: str = "") -> UsageError:
    """The error for a name that is not among those allowed, with the nearest one that is.

    Args:
        kind: what the name is of.
        given: the name.
        allowed: all that it could have been.
        where: said after the name.
        prefix: put before each name, as in `optimizer.lr`.
    """
    names = sorted(str(name) for name in allowed)
    nearest = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {prefix + nearest[0]!r}?" if nearest else ""
    place = f" {where}" if where else ""
    listed = ", ".join(prefix + name for name in names) or "nothing here"
    return UsageError(f"unknown {kind} {prefix + given!r}{place}.{hint}\nAllowed: {listed}.")
