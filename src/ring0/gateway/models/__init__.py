"""The model doors: what agents in any framework speak, and what becomes of it here.

routes.py answers HTTP, asking.py takes a question through the gate and judges what the model
proposes, pieces.py is an answer on its way.
"""
