"""What runs, judges, draws and keeps the studies of ``fenland.lab.studies``."""
