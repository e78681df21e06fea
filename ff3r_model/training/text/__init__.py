"""The text space and the text tower: word lists, phrases, distillation from a sentence encoder."""
