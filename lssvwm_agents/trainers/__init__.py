"""Training: the tokenizer, then the world model, with checkpoints that survive `kill -9`."""
