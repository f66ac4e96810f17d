"""What must not reach the log."""

import logging
import re


class WithoutQuery(logging.Filter):
    """Cuts the query off an access line: somebody may have put a camera's address there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(re.sub(r"\?\S*", "?...", arg) if isinstance(arg, str) else arg for arg in record.args)
        return True
