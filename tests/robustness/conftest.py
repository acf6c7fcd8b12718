"""Reports at the end how many cases of each class were tried, and how many failed."""

from typing import Any

import pytest

TALLIES: list[dict[str, Any]] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each class, with its seed."""
    if not TALLIES:
        return
    terminalreporter.section("robustness")
    for tally in TALLIES:
        terminalreporter.write_line(
            f"{tally['class']:<16} seed {tally['seed']}: {tally['tried']:>6} cases, "
            f"{tally['failed']} failed, slowest {tally['slowest_s']:.2f} s, "
            f"memory +{tally['grown_mb']:.0f} MB"
        )
