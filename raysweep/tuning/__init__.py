"""Modes of fine-tuning: what of a network is trained, and how fast. One file each."""
