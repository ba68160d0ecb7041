"""What is measured against stock Tunix."""
