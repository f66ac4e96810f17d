"""The project: settings, addresses and what the processes around Django need."""

# The only place that holds the version: pages, API, metrics and `manage.py version` read it.
__version__ = "1.0.0.dev0"
