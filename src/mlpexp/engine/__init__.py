"""Engines that train many networks of one shape at once."""
