"""Packs and what is read from them: format, splits, annotation subsets, batched augmentation."""
