"""Checkpoints of other code bases: Hugging Face folders become runs, and runs become folders that load there."""
