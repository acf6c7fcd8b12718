"""Reports at the end how many cases of each class were tried, and how many failed."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each class, with its seed."""
    ended = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    # properties travel with a report, also from another process
    told = [value for report in ended for key, value in report.user_properties if key == "tally"]
    if not told:
        return
    terminalreporter.section("robustness")
    for tally in told:
        terminalreporter.write_line(
            f"{tally['class']:<16} seed {tally['seed']}: {tally['tried']:>6} cases, "
            f"{tally['failed']} failed, slowest {tally['slowest_s']:.2f} s, "
            f"memory +{tally['grown_mb']:.0f} MB"
        )
