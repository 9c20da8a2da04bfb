"""Hermetic bundles: a C library, a Python, NumPy and one runtime that run from any folder."""
