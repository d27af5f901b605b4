"""Every training field once, and the one dialect in which people write its values."""

from fenland.lab.config.run_config import PRECISIONS, SCHEMA, RunConfig

__all__ = ["PRECISIONS", "SCHEMA", "RunConfig"]
