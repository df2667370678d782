"""Convert Janus checkpoints between DeepSeek's layout and that of transformers."""
