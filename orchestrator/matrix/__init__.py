"""YAML → strict models → cells. Imports no numpy and no runtime: planning is instant."""
