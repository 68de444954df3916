"""Feature methods: the distance to healthy features of a fixed or learned backbone."""
