"""Data modules: samples in, batches of tensors out."""
