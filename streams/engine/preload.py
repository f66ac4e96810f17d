"""What the fork server loads once, for all recorders to share. Imported nowhere else."""

import gc

from . import recording

__all__ = ["recording"]

# A collection writes into the head of each object it looks at, which makes a page of each recorder's own of every
# page that it shares: without this a recorder holds 4 MB more.
gc.collect()
gc.freeze()
