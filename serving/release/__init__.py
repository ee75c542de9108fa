"""Two policies side by side: who answers whom, and the steps of the one that is let in"""
