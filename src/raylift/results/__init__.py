"""What is written of a reconstruction, and how a person reads it."""
