"""What all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of encoded clips, one for all processes of a test run."""
    return Path(os.environ["TEST_DATA"]) / "clips"
