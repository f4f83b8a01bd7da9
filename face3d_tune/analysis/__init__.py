"""Analysis of a study. It writes nothing."""
