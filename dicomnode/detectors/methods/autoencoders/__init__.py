"""Auto-encoders: trained to give back healthy planes; what they cannot give back is suspect."""
