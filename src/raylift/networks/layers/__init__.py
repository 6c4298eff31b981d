"""The layers that several architectures share."""
