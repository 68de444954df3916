"""Adversarial methods: a generator of healthy planes and a critic."""
