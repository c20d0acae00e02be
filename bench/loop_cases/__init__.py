"""The cases of `ring0 bench loops`: agents that loop (looping.py), agents that only look as if they
did (legitimate.py), and the servers that they work with (servers.py).
"""
