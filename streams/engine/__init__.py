"""From an RTSP address to the best frames of a live stream. Knows no Django and no database."""
