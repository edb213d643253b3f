"""One file per pretraining method."""
