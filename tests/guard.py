"""Runs a server for as long as another process lives; then ends it and removes its folder.

usage: guard.py OWNER_PID FOLDER COMMAND...

The end of the owner is seen however it ends. COMMAND should ask for SIGQUIT at the end of its parent (setpriv
--pdeathsig), in case this process is the one that is killed. Standard library only: it starts in a few milliseconds.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

END_S = 10.0


def main(owner: int, folder: str, command: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the tests ends the owner
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_hear_signals)
    poll = select.poll()
    with suppress(ProcessLookupError):  # the owner is gone already
        poll.register(os.pidfd_open(owner), select.POLLIN)
        poll.register(os.pidfd_open(server.pid), select.POLLIN)
        poll.poll()
        if _is_alive(owner):
            return server.wait()
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(END_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _hear_signals() -> None:
    """What is ignored stays so in the program that is run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
