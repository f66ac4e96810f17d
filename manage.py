#!/usr/bin/env python
"""Django's command line. Recorder processes import this file too, so it imports no Django until it is run."""

import os
import sys


def main() -> None:
    _replace_closed_streams()
    if sys.argv[1:] in (["version"], ["--version"]):  # Django would print its own alone
        print(_versions())
        return
    settings = "rtspsite.bare" if sys.argv[1:2] == ["capture"] else "rtspsite.settings"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    try:
        from streams import given_address  # before anything that takes a while: nobody shall see a camera's password

        given_address.conceal(sys.argv[1:])
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise ImportError(
            "No Django for this Python, or it is older than 3.11: run `make setup` and use .venv/bin/python"
        ) from error
    execute_from_command_line(sys.argv)


def _versions() -> str:
    """One line with the service's version first. It needs no settings and no database."""
    import platform

    import django

    from rtspsite import __version__

    return f"{__version__} (Django {django.get_version()}, Python {platform.python_version()})"


def _replace_closed_streams() -> None:
    """After `2>&-` whatever is opened next has the number 2, and gets what is meant for standard error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # stays open


if __name__ == "__main__":
    main()
