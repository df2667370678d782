"""Reporting: the run folder, metrics, sample images, tables, the progress bar and terminal output."""
