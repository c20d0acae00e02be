"""What PostgreSQL says of a statement: its parse tree, its catalog, its counters, its rows."""
