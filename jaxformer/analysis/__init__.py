"""What a config costs before it runs: parameters, bytes and FLOPs."""
