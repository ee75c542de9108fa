"""What every request passes: who calls, how much at once, what is refused and how."""
