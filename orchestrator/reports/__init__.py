"""Renderers of one result document: terminal, HTML, JSON. No queries, no decisions."""
