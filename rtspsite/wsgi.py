"""What gunicorn and runserver serve."""

import importlib
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rtspsite.settings")

application = get_wsgi_application()
importlib.import_module("rtspsite.urls")  # by itself Django does it while the first visitor waits: half a second
