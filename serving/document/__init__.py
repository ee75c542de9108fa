"""The document at /openapi.json: what each route takes and gives, with examples"""
