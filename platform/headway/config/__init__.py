"""The machinery recipes are made of. Imports neither torch nor anything that does."""
