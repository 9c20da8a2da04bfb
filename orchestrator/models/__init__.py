"""Model files: what they take and compute, their lineage, and smaller ones cut from them."""
