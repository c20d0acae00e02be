"""What calls did is taken back: planned from the record, rehearsed, done as a run of its own."""
