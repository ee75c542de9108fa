"""The routes beside chat: judgements, people, rounds, policies, releases, health"""
