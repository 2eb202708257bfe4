"""Process-level services: errors, signals, output streams, versions, data-parallel ranks, fast imports."""
