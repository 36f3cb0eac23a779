"""The main job from a table to a labelled table, on real sockets, money counted by the provider."""
