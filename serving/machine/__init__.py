"""Everything on one machine, as `ratchet up` runs it: started in order, watched, ended"""
