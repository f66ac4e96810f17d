"""Exit codes of the commands for people, the same in both; docs/operations.md has the table."""

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    """Anything that has no code of its own. Django's own, too."""
    USAGE = 2
    """argparse's own."""
    NOT_ENOUGH_FRAMES = 3
    NO_FRAME = 4
    CANNOT_WRITE = 5
    UNKNOWN = 6
    """No stream of that name, or no capture of it."""
    REFUSED = 7
    """It contradicts what is running."""
    NOT_YET = 8
    """Wanted, and not done within the time."""
    KILLED = 130
    """By Ctrl-C (`capture`: by a second one), as shells count it."""
