"""How long each step from an address to the first picture may take, in seconds. Pure.

Relays start their source for DESCRIBE and stop it when the client leaves (go2rtc #1633, frigate PR #17831): a client
that hangs up early never gets there.
"""

CONNECT_S = 5.0
"""Longest wait for each connection, for its TLS handshake, and for the answer to OPTIONS."""
ANSWER_S = 15.0
"""Longest wait for the answer to DESCRIBE, and as long for SETUP and for PLAY."""
FIRST_PACKET_S = 30.0
"""From PLAY to the first packet (frigate #11041 #7747, motion #1104)."""
NO_PICTURE_S = 12.0
"""Packets come, and none of them completes a picture."""
MAX_ADDRESSES = 4
"""So many IP addresses of a name are tried."""
OPENING_S = (MAX_ADDRESSES + 2) * CONNECT_S + 3 * ANSWER_S
"""The whole opening, redirects and repeated requests included: connections, TLS, OPTIONS, and the three answers."""
FIRST_PICTURE_S = FIRST_PACKET_S + NO_PICTURE_S
"""From PLAY to the first complete picture."""
