"""What the operating system gives and takes: paths, regular files, text that may be shown."""
