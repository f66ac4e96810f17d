"""Loaded before Django's settings: tests keep their data in a folder of their own."""

import atexit
import os
import shutil
import tempfile

if "TEST_DATA" not in os.environ:
    os.environ["TEST_DATA"] = tempfile.mkdtemp(prefix="streams-test-")
    atexit.register(shutil.rmtree, os.environ["TEST_DATA"], ignore_errors=True)

os.environ["DATA_DIR"] = os.path.join(os.environ["TEST_DATA"], "data")
os.environ["MEDIA_ROOT"] = os.path.join(os.environ["TEST_DATA"], "media", str(os.getpid()))
os.environ["CAPTURE_HOST_NAME"] = "test-host"
for name in ("DATABASE_URL", "SECRET_KEY", "CREDENTIALS_KEYS", "ALLOWED_HOSTS", "DEBUG", "HTTPS", "PORT", "HOST"):
    os.environ.pop(name, None)
