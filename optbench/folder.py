"""The folder of a report: what it writes, and what an earlier one left there."""

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

MANIFEST = ".optbench-report.json"
# Where reports write; nothing else is ever deleted.
PLACES = ("figures", "tables")


class Folder:
    """Files are replaced whole, and those of an earlier report that this one has no use for are deleted.

    Args:
        path: is made if it is not there. Nothing in it is touched that no report has written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: list[Path] = []

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file.

        Args:
            name: below the folder, with slashes.
            content: of the file.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{uuid.uuid4().hex}")
        try:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self.written.append(path)
        return path

    def close(self) -> None:
        """Note which files there are, and delete those of an earlier report that are not among them."""
        names = sorted(path.relative_to(self.path).as_posix() for path in self.written)
        for name in self._earlier():
            if name not in names:
                with suppress(OSError):
                    (self.path / name).unlink()
        self.write(MANIFEST, json.dumps(names, indent=1) + "\n")

    def _earlier(self) -> Sequence[str]:
        """The files that the report before wrote, as far as they are inside the folder."""
        with suppress(OSError, ValueError, TypeError):
            names = json.loads((self.path / MANIFEST).read_bytes())
            return [name for name in names if isinstance(name, str) and _is_ours(PurePosixPath(name))]
        return []


def _is_ours(path: PurePosixPath) -> bool:
    return len(path.parts) == 2 and path.parts[0] in PLACES and path.parts[1] not in (".", "..")
