"""What `import motet` offers: whole runs, and the functions that a training loop is written with."""
