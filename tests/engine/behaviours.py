"""What cameras do, as a table: all faults of the scripted camera, and what people's cameras were reported to do."""

from tests.camera.faults import FAULTS

from .differential import Behaviour

BEHAVIOURS: dict[str, Behaviour] = {
    "plays": Behaviour(),
    **{name: Behaviour(fault) for name, fault in FAULTS.items()},
}
