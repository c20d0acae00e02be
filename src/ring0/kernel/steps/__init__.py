"""What the ten steps of the gate ask and do: each a module that one step calls."""
