"""Parameters in other layouts and from other projects."""
