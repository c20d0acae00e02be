"""What an agent is made of: its manifest, the snapshot of its code, its process."""
