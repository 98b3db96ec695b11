"""Bridges: a frozen image encoder and a frozen text model, joined by a trained connector."""
