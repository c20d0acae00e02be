"""Proof that the journal is what it was: proofs, signed checkpoints, receipts, the signer."""
