"""The CLIP family through open_clip."""
