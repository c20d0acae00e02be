"""A run's files: files.py keeps them, inside.py takes them into a sandbox and back, history.py says
what changed when."""

from ring0.tools.workspace.files import Workspace, canonical_path

__all__ = ["Workspace", "canonical_path"]
