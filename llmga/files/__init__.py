"""Weight files: reading their headers, tensors and indexes, and saying what a file is."""
