"""Classic experiments: each module turns the table of its sweep into one figure and sentences with numbers."""
