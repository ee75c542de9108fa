"""What the stages share: minibatches and steps of the optimizer, in one process or in several"""
