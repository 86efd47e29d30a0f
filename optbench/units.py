"""Figures in words for people."""

GIB = 2**30


def in_bytes(count: float | None) -> str:
    """Bytes in the largest unit that they fill, to four digits."""
    if count is None:
        return "-"
    for unit, size in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"


def in_milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds, to three digits."""
    return "-" if seconds is None else f"{seconds * 1e3:.3g}"


def in_percent(share: float | None) -> str:
    """A share of 1, in whole percent, or to a tenth of one below ten."""
    return "-" if share is None else f"{share * 100:.{0 if share >= 0.1 else 1}f} %"
