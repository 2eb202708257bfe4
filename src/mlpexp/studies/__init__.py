"""The classic experiments: each module turns the table of its sweep into one figure and a verdict in numbers."""
