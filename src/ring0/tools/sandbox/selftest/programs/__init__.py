"""The attack programs. Their text is sent into a sandbox, or run outside as the control.

Nothing of ring0 imports them. Each function tries one thing and gives back what it got; nothing,
where it got nothing. They use the standard library alone.
"""
