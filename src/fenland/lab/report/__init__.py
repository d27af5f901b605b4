"""The report of a comparison: one page that needs nothing else, its figures as files, its numbers as parquet."""

from fenland.lab.report.beside import write_beside
from fenland.lab.report.outcome import Outcome, decide
from fenland.lab.report.write import write_report

__all__ = ["Outcome", "decide", "write_beside", "write_report"]
