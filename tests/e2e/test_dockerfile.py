"""What the Dockerfile says, read; `make test-image` builds and runs it."""

import re

from tests.e2e.service import ROOT

LINES = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ").splitlines()


def arguments(instruction: str) -> list[str]:
    """What follows each of these instructions, continued lines joined."""
    return [line.split(maxsplit=1)[1] for line in LINES if line.startswith(f"{instruction} ")]


def test_it_copies_what_is_there_and_the_source_after_the_packages() -> None:
    for line in arguments("COPY"):
        *sources, target = line.split()
        assert all((ROOT / source).exists() for source in sources)
        assert target in ("/opt/exercise/", "/app")
    names = [line.split()[0] for line in LINES if line.strip()]
    assert names.index("RUN") < LINES.index("COPY . /app")


def test_a_checkout_mounted_over_app_hides_nothing_that_it_needs() -> None:
    assert "/app" not in (ROOT / "scripts/image-install.sh").read_text().replace("outside /app", "")
    for instruction in ("ENTRYPOINT", "HEALTHCHECK", "RUN"):
        (said,) = arguments(instruction)
        assert "/opt/exercise/" in said
        assert "/app" not in said


def test_the_image_and_its_folders_are_meant_for_the_same_user() -> None:
    assert arguments("USER") == ["10001:10001"]
    installed = (ROOT / "scripts/image-install.sh").read_text()
    assert set(re.findall(r"--(?:uid|owner|group) (\d+)", installed)) == {"10001"}
