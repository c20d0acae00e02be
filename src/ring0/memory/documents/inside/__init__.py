"""What runs in a document's sandbox: one parser, on the bytes of one file. Nothing here is imported
by the kernel, and nothing that it says is believed: `blocks.py` reads it."""
