"""The torch engine: each run of a stack has the bits that it would have alone."""
