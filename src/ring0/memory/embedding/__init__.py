"""Vectors of texts: who makes them, behind one interface. Offline by models of installed packages,
in a process of their own (server.py); how remote ones are asked is the kernel's.
"""
