"""Clips on disk, encoded once for all workers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.camera.clip import Scene, cached_mp4


@pytest.fixture(scope="session")
def mp4() -> Callable[[Scene], Path]:
    """The file of a scene. TEST_DATA is the controller's folder: workers find what another one has encoded."""
    folder = Path(os.environ["TEST_DATA"]) / "clips"
    return lambda scene: cached_mp4(scene, folder)
