"""What people meet: the gateway, the policy swap, and the command that runs it all."""
