"""The JSON API below /api/: docs/api.md has its calls, /api/docs shows and tries them."""
