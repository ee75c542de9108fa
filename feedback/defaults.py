"""What training does where nobody says otherwise, as far as commands tell of it; its configs take it from here."""

SFT_EPOCHS = 2
SFT_RATE = 2e-4
REWARD_EPOCHS = 2
REWARD_RATE, FULL_REWARD_RATE = 1e-3, 1e-5  # of an adapter, and of whole layers
HELD_OUT_FRACTION = 0.2
PPO_ITERATIONS = 6
PPO_RATE = 1e-3
KL_COEF = 0.1
MAX_NEW_TOKENS = 40
SEED = 0
