"""Training of the connector between a frozen image encoder and a frozen text model."""
