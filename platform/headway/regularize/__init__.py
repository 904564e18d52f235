"""Techniques against overfitting, and others that act on batch, loss, gradient or weights: one file each."""
