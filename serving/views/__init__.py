"""What the API and the commands both tell: releases, rounds, policies, raters."""
