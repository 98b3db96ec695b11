"""What was made of the bundled emoji, and how well models know them."""
