"""Storage SCU: results to their Destinations, again and again until they are stored or given up visibly."""
