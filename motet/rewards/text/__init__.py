"""Rewards of text answers: exact, multiple choice, partial credit, mathematics, format."""
