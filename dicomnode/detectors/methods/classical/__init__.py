"""Classical statistics on handcrafted features."""
