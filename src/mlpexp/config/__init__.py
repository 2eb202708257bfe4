"""Configuration: the schema, its checks, and messages for what Hydra refuses."""
