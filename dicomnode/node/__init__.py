"""The composition root: builds everything from ``Config``, starts and stops the processes, owns the timers."""
