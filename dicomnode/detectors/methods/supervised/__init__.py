"""Supervised methods: classifiers, with labelled or synthetic abnormal planes."""
