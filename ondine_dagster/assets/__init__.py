"""The stages of a dataset as Dagster assets, one file each: snapshot, raw_rows, prompts, responses,
report, export. `factory` puts them together; what they are made of lies in the folders below.
"""
