"""What was recorded, beyond the folder in which it was: cassettes, comparisons, searches."""
