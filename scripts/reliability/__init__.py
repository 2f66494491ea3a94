"""Real faults under load, and a ledger that says what may not be lost."""
