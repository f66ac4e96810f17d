"""What recorders share: they are forked from a process that has loaded all of it, and keep it as it is."""

import gc
from multiprocessing.connection import Connection

from streams.engine import recorder

LOADED = 20_000  # objects; libav, OpenCV and NumPy bring 60,000 and more
LIMIT_S = 60.0


def tell(answers: Connection) -> None:
    """Of the process that it runs in."""
    answers.send(gc.get_freeze_count())


def test_what_is_there_when_a_recorder_begins_is_left_alone_by_its_garbage_collections() -> None:
    """A collection writes to each object that it looks at: 3 MB of what was shared are then the recorder's own."""
    mine, its = recorder._CONTEXT.Pipe()
    process = recorder._CONTEXT.Process(target=tell, args=(its,))
    process.start()
    assert mine.poll(LIMIT_S)
    assert mine.recv() > LOADED
    process.join(LIMIT_S)
    assert process.exitcode == 0
