"""What launcher.py runs: the zygote, the making of a sandbox, its init, its tenant's process.

Imported by the launchers only, with `-I`, and nothing but the standard library. Modules of ring0
never import it.
"""
