"""Devices that the farm cannot reach: cells leave as an archive and come back (pack and ingest)."""
