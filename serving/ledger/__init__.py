"""What the gateway writes into the ledger: answers before they end, judgements before they are acknowledged."""
