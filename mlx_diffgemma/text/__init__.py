"""Text to token ids and back: the tokenizer, the chat template, and the text of an answer that grows token by token."""
