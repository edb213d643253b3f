"""Scores as pure functions of arrays, without torch: what stages measure and analyses resample."""
