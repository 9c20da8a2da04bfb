"""The user's files become the exact bytes that devices get."""
