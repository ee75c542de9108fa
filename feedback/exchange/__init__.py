"""Judgements in and out of the ledger as JSON lines: the formats, the export and the import."""
