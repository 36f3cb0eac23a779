"""What becomes of single rows: their questions, packs, files, samples, answers, ends."""
