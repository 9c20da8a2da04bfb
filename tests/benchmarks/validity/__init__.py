"""Does the audit find what is there, name it right, and stay silent where nothing is?

Defects are planted and nulls are made; the same code that answers users judges them. Two corpora:
`defects`, `inner` and `nulls` on the quickstart's nets, and `held_out` on nets that `drawn` makes.
"""
