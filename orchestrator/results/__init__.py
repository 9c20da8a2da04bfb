"""What came back of an attempt, and the one check it passes before anything of it is stored.

A pure core: what came and what was asked go in, a checked attempt or an InfraError E-RESULT-…
comes out. A live link, a hub's spool, Ray and `assay ingest` all end here.
"""
