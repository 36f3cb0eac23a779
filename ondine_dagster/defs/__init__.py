"""The datasets of this project, one folder each."""
