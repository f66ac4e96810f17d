"""What a capture learned about its camera, for its next connections, recorders and captures. Pure."""

import json
from dataclasses import dataclass

MAX_LENGTH = 200
"""Characters of the encoded form that a recorder may send: three times what two fields take."""


@dataclass(slots=True)
class Quirks:
    """Each field is empty as long as nothing was learned."""

    transport: str = ""
    """tcp or udp: the one that works where the one asked for did not."""
    keepalive: str = ""
    """OPTIONS or GET_PARAMETER: the one that this camera needs, whatever its Public header says."""

    def encode(self) -> str:
        """JSON of what was learned; empty if that is nothing. Equal quirks have equal text."""
        learned = {name: value for name in _KNOWN if (value := getattr(self, name))}
        return json.dumps(learned, separators=(",", ":")) if learned else ""

    @classmethod
    def decode(cls, text: str) -> "Quirks":
        """Read what any version wrote: a key or a value that this one does not know is ignored, as is other text."""
        try:
            held = json.loads(text)
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(held, dict):
            return cls()
        return cls(**{name: held[name] for name, values in _KNOWN.items() if held.get(name) in values})


_KNOWN = {"transport": ("tcp", "udp"), "keepalive": ("OPTIONS", "GET_PARAMETER")}
