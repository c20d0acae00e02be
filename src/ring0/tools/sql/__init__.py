"""The built-in tool `sql`: SQLite and PostgreSQL, rehearsed, bounded and taken back.

tool.py has its operations, the same for both; what a statement does, each engine says itself.
"""

from ring0.tools.sql.tool import drivers, rehearse_undo, touched, undo

__all__ = ["drivers", "rehearse_undo", "touched", "undo"]
