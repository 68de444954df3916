"""The worker: claim, load the Volume, gate, run the detector, call ``report``, put Derived Instances in the spool."""
