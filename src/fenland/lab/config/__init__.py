"""Every training field once, and the one dialect in which people write its values."""

from fenland.lab.config.run_config import BASES, PRECISIONS, SCHEMA, RunConfig

__all__ = ["BASES", "PRECISIONS", "SCHEMA", "RunConfig"]
