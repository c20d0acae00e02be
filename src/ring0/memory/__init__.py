"""What agents remember: recall within a scope, facts, working sets, assembly, forgetting.

Not the gate's side of it (kernel/memory/), nor where it is stored (store/).
"""
