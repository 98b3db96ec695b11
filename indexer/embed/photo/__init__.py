"""A photo model: a frozen image encoder and a frozen text model, joined by two small trained connectors."""
