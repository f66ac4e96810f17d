"""Cameras whose picture becomes darker every second: whoever forgets the first ones cannot have them again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera

# The film begins anew after four minutes, which is longer than a test may last.
PLAN = (*(250.0 - 2 * second for second in range(115)), *(16.0,) * 125)
SCENE = Scene(160, 120, PLAN, fps=5)


@contextmanager
def dimming_cameras(count: int) -> Iterator[list[ScriptedCamera]]:
    """All viewers of one see the same second; the film begins when this does."""
    clip = encode(SCENE)
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedCamera(clip, path=f"cam-{n}", live=True)) for n in range(count)]
