"""Tools: manifests, drivers, the sandbox. What the gate needs is driver.py and registry.py."""
