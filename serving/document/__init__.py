"""The document at /openapi.json: what routes take and give; and what orders and sign-ins are checked by."""
