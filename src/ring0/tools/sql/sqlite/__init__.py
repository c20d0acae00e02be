"""What SQLite says of a statement: its authorizer, its counters, its rows before and after."""
