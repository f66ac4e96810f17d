"""Runs where recorders run, and says what is there. Imports nothing that it could then find."""

import os
import socket
import sys


def look(link: socket.socket) -> None:
    """The names of all modules, a blank line, the names of all environment variables."""
    with link:
        link.sendall("\n".join([*sys.modules, "", *os.environ]).encode())
