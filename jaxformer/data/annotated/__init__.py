"""Imports of pictures whose objects or pixels are labelled."""
