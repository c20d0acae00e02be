"""The built-in tool `files`, and how a change of files is taken back, whoever made it."""

from ring0.tools.files.tool import drivers
from ring0.tools.files.undoing import rehearse_undo, undo

__all__ = ["drivers", "rehearse_undo", "undo"]
