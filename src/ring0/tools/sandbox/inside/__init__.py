"""What launcher.py runs: the making of a sandbox and the life of its init.

Imported by the launcher only, with `-I -S` and nothing but the standard library. Modules of ring0
never import it.
"""
