"""The harness of all benchmarks: options, gallery, methods, protocol, measurement, results."""
