"""What a user may ask of recorded runs, one module a question: a run's verdict, views, causes.

A module reads `runs`, hands arrays to the pure rooms and answers plain data that `reports` renders.
"""
