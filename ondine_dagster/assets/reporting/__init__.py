"""The report as numbers, charts and one HTML page."""
