"""Who uses the service and who rates: keys, sessions, raters and how they are checked."""
