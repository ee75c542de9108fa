"""The loop's ledger: what people were shown and said goes forward, policies come back."""
