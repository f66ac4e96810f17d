"""Gunicorn's logger with LOG_FORMAT=json: serve.sh names it. Nothing else needs to import gunicorn for it."""

from typing import Any

from gunicorn import glogging

from .json_log import JSONLines


class Logger(glogging.Logger):  # type: ignore[misc]  # it comes without types
    """Gunicorn gives its handlers a format of their own."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(JSONLines())
