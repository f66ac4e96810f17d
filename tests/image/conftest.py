"""Only scripts/test-image.sh (`make test-image`) runs these: it builds the image first. `make test` does not."""

from collections.abc import Iterator

import pytest

from tests.image.podman import PODMAN, Containers

collect_ignore_glob = [] if PODMAN else ["test_*"]


@pytest.fixture
def containers() -> Iterator[Containers]:
    containers = Containers()
    yield containers
    containers.end()
