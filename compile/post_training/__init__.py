"""What is done to a trained float32 network so that int8 keeps its accuracy: nothing of it trains."""
