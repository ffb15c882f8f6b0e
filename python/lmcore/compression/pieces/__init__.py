"""Tokenizers with fewer pieces: what their files hold, and what of it must stay."""
