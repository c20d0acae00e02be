"""The simulator: the whole kernel on a simulated clock, disk and world, from a seed."""
