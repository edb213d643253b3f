"""Training loops in plain PyTorch; they know neither Ray nor the grid."""
