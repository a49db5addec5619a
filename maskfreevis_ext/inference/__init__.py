"""Inference: whole clips, and what is made of their outputs."""
