"""Recorded runs, read: snapshot, staged files, observations, answers, baselines."""
