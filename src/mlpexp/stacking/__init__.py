"""Many networks of one shape trained at once, each with the bits it would have alone."""
