"""Where values came from and what came of them, told from the journal alone; and quarantine."""
