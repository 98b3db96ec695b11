"""The one harness: options, gallery, methods, protocol, measuring, results."""
