"""Imports of libraries that tell the log about themselves, or that come with an extra."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from optbench.errors import UsageError


@contextmanager
def quiet(*, extra: str | None = None) -> Iterator[None]:
    """Have nothing below an error logged meanwhile: what is imported says what else is missing, and nobody asked.

    Args:
        extra: of optbench, which has what is imported; None is no extra.

    Raises:
        UsageError: a package of the extra is not installed.
    """
    previous = logging.root.manager.disable
    logging.disable(max(previous, logging.WARNING))
    try:
        yield
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        raise UsageError(
            f"{error.name} is not installed, and this needs it: pip install 'optbench[{extra}]'.\n"
            f"In a checkout: .venv/bin/python -m pip install --constraint constraints.txt --editable '.[{extra}]'"
        ) from error
    finally:
        logging.disable(previous)
