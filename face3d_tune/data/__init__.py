"""The six data files: read, checked, paired, split by person, converted."""
