"""What several test files share: tiny models, tiny datasets, references."""
