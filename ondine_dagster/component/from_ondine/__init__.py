"""Ondine's configuration files turned into declarations: https://github.com/ptimizeroracle/ondine."""
