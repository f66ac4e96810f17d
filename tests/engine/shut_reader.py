"""A process that is shut in as a recorder is, and says for each line that it reads what it can read now.

python -m tests.engine.shut_reader NAME_FILE [CLOSED ...]

NAME_FILE stands for /etc/resolv.conf. A line is a path; the answer is JSON: whether it can be read, and which of the
files for look-ups was replaced.
"""

import json
import os
import sys
from pathlib import Path

from streams.engine import limits, lookups, sandbox


def main(name_file: str, *closed: str) -> None:
    lookups.NAME_FILES = (name_file,)
    limits.gain_nothing()
    if not sandbox.shut_in(554, closed=closed):
        raise SystemExit("this system has no Landlock")
    files = [name_file, *lookups.authority_files()]
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        print(json.dumps([_is_read(Path(line.rstrip("\n"))), sandbox.replaced(files)]), flush=True)


def _is_read(path: Path) -> bool:
    try:
        return bool(os.listdir(path) if path.is_dir() else path.read_text() or True)
    except OSError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
