"""Why and where two answers to one question differ: evidence in, mechanism out. Pure."""
