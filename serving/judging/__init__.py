"""What people say of answers: as it is sent, told again, listed and taken away as lines that train."""
