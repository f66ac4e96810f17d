"""Settings of a command that needs no database, no key and no folder: manage.py takes them for `capture`.

settings.py makes keys in DATA_DIR and refuses wrong values, of which none matters there.
"""

INSTALLED_APPS = ["streams"]
USE_TZ = True
TIME_ZONE = "UTC"
