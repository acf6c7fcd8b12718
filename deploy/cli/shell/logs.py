"""What modules log while a command runs, on stderr."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from resdeploy.deploy.cli.output import say


class _Lines(logging.Handler):
    """Writes what modules log, each line made harmless: a request or a file is in it."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line for a remark, several with a traceback."""
        for line in self.format(record).splitlines():
            say(line, stderr=True)


@contextmanager
def harmless_logs() -> Iterator[None]:
    """Show warnings and errors of this package's modules, and nothing that a terminal obeys."""
    logger, lines = logging.getLogger("resdeploy"), _Lines(logging.WARNING)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
