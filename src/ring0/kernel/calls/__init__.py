"""The kinds of call that the kernel carries out itself, with what they need: locks, mail."""
