"""What a user may ask beyond a run's verdict, one module a question.

A module reads (or visits devices), hands arrays to the pure folders, and answers plain data that
``reports`` renders.
"""
