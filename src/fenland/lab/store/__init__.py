"""What is kept: runs, the locks on them, their tables, and the machine they ran on."""
