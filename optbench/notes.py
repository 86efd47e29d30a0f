"""What the suite says while it does something that takes its time, such as a download."""

import logging
from collections.abc import Callable

_logger = logging.getLogger("optbench")


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


def listen(say: Callable[[str], None]) -> None:
    """Have this said from now on, by whoever was asked last, what is logged as `optbench`."""
    for handler in [handler for handler in _logger.handlers if isinstance(handler, _Saying)]:
        _logger.removeHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.addHandler(_Saying(say))
