"""Readers of files by format: text, HTML, JSON, CSV, Parquet, Arrow; compressed, and of any encoding."""
