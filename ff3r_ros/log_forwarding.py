"""Log forwarding: what the library logs reaches /rosout through the node's logger."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

LIBRARIES = ("ff3r_model", "ff3r_ros")
"""Loggers whose records, and those of the loggers below them, are forwarded."""


class LogForwarder(logging.Handler):
    """Passes log records to a node's logger; those that come before there is a node wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._logger: RcutilsLogger | None = None
        self._waiting: list[logging.LogRecord] = []

    def attach(self) -> None:
        """Listen to the libraries from now on."""
        for name in LIBRARIES:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).setLevel(logging.INFO)

    def detach(self) -> None:
        """Listen no more."""
        for name in LIBRARIES:
            logging.getLogger(name).removeHandler(self)

    def forward_to(self, logger: RcutilsLogger) -> None:
        """The logger of the node, now that there is one."""
        waiting, self._waiting = self._waiting, []
        self._logger = logger
        for record in waiting:
            self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logging library."""
        if self._logger is None:
            self._waiting.append(record)
        # rclpy ties a severity to a line of code, so each severity has its own
        elif record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())
