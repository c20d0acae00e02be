"""The demo: a real database, real tickets, a real agent in a real sandbox, and a model that obeys
everybody. Not a part of the kernel: it uses what every operator has.
"""
