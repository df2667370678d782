"""The report of runs as one HTML page without anything from elsewhere: `write_report`."""
