"""Store → views: a run's numbers by device, class, runtime or slice, and of single pairs.

What the kept result document does not hold is computed on demand from the outputs in the store.
Every view is plain data of one versioned form (``assay.variance/1``).
"""
