"""Training of a photo model: the two connectors between a frozen image encoder and a frozen text model."""
