"""Says at the end how many cases each parser took."""

import pytest
from tests.fuzz.parsers import CASES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CASES:
        terminalreporter.section("cases a parser")
        for name, count in sorted(CASES.items()):
            terminalreporter.write_line(f"{count:9,}  {name}")
        terminalreporter.write_line(f"{sum(CASES.values()):9,}  in all")
