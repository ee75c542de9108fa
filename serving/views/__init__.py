"""What the API and the commands share: how releases, rounds, policies and raters are told, and what may be ordered."""
