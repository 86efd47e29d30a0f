"""What trackers have written, read back: runs of Weights & Biases from their files, as `wandb sync` would send them."""

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768  # bytes of LevelDB's log format, in which wandb writes its records
HEADER = struct.Struct("<IHB")  # checksum, length and kind of a piece
MAGIC = b":W&B"


@dataclass
class Run:
    """An offline run: the settings of the last of its records that has them."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    kinds: set[str] = field(default_factory=set)


def records(path: Path) -> Iterator[Any]:
    """wandb's own messages; 0.31 has no reader in Python, and its file is a log of LevelDB's kind."""
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    assert content.startswith(MAGIC)
    at, message = 7, b""
    while at + HEADER.size <= len(content):
        if BLOCK - at % BLOCK < HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        if kind == 0:
            return
        message += content[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def runs(folder: Path) -> list[Run]:
    """The offline runs below `wandb/` in a folder, the oldest first."""
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()  # a run is finished a moment before all of it is in its file
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [_read(path) for path in paths]


def _read(path: Path) -> Run:
    found = Run()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        found.kinds.add(kind)
        if kind == "run":
            found.run = record.run
            _update(found.config, record.run.config.update)
        elif kind == "config":
            _update(found.config, record.config.update)
        elif kind == "summary":
            _update(found.summary, record.summary.update)
        elif kind == "history":
            found.history.append(_update({}, record.history.item))
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _update(target: dict[str, Any], items: Any) -> dict[str, Any]:
    for item in items:
        *above, last = [item.key] if item.key else item.nested_key
        node = target
        for name in above:
            node = node.setdefault(name, {})
        node[last] = json.loads(item.value_json)
    return target
