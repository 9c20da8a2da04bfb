"""Temperatures, clocks, throttle flags and memory while a model runs."""
