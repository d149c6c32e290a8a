"""The report: one HTML page on a scene before and after."""
