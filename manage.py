#!/usr/bin/env python
"""Django's command line. Recorder processes import this file too, so it imports no Django until it is run."""

import os
import sys


def main() -> None:
    from streams import given_address  # before anything that takes a while: nobody shall see a camera's password

    given_address.conceal(sys.argv[1:])
    settings = "rtspsite.bare" if sys.argv[1:2] == ["capture"] else "rtspsite.settings"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise ImportError(
            "Django is not installed for this Python: run `make setup` and use .venv/bin/python"
        ) from error
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
