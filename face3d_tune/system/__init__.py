"""The operating system: paths, regular files, signals, text that is safe to show."""
