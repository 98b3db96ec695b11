"""Parts for underdrawing, one in each module."""
