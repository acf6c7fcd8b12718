"""The files of an export: the folder, its manifest, graphs, reference and reports."""
