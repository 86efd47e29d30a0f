"""Random streams: the same for everyone who asks with the same seed and name."""

import subprocess
import sys

import pytest

from optbench.seeding import Stream, stream

NAMES: tuple[Stream, ...] = ("init", "order", "noise")


@pytest.mark.parametrize(
    ("seed", "name", "expected"),
    [
        (0, "init", 1519069808562059438),
        (0, "order", 5231958647509549229),
        (1, "init", 5267816590608909949),
    ],
)
def test_a_stream_is_the_same_for_ever(seed: int, name: Stream, expected: int) -> None:
    """A change here changes every result: stored trials would no longer be what their ids say."""
    assert stream(seed, name) == expected


def test_a_stream_is_the_same_in_every_process() -> None:
    code = "from optbench.seeding import stream; print(stream(7, 'order'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True
        ).stdout
        for salt in ("1", "2")
    }
    assert outputs == {f"{stream(7, 'order')}\n"}


def test_no_two_streams_are_alike() -> None:
    streams = [stream(seed, name) for seed in range(2000) for name in NAMES]
    assert len(set(streams)) == len(streams)


def test_every_stream_is_a_seed_that_torch_and_numpy_take() -> None:
    streams = [stream(seed, name) for seed in (*range(1000), 2**63, 10**30) for name in NAMES]
    assert all(0 <= value < 2**63 for value in streams)
    assert max(streams) > 2**62, "all 63 bits are in use"
