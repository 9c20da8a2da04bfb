"""The system of record: runs, cells, attempts, leases and artefacts.

Empty on purpose: ``store.glance`` (read-only, standard library) must load without
``store.database`` (SQLModel), so that ``assay status`` starts at once.
"""
