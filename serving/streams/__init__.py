"""An answer on its way: from the engine to the client, stopped, resumed, or put together again."""
