"""Memory at work: what the kernel does with the primitive of that name, for runs and operators."""
