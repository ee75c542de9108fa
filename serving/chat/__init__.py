"""An answer, or several side by side, for who asks: from the request to what is sent and kept."""
