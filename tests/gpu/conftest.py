"""Shows in the end what was measured."""

import pytest
import torch

_ROWS = pytest.StashKey[list[str]]()


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[str]:
    """Rows to be shown in the end."""
    return request.config.stash.setdefault(_ROWS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(_ROWS, []):
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU, as a rehearsal"
        terminalreporter.section(f"Memory of a step on {device}, in MiB")
        head = ("task", "optimizer", "predicted", "allocated", "ratio", "reserved", "device")
        terminalreporter.write_line("{:10}{:11}{:>11}{:>11}{:>8}{:>11}{:>11}".format(*head))
        for row in rows:
            terminalreporter.write_line(row)
