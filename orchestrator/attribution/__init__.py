"""Why two answers to one question differ: evidence in, mechanism and changed factor out. Pure."""
