"""What a study shows. It writes nothing."""
