"""The other routes: the page and its sessions, stored chats, people, rounds, policies, releases, health."""
