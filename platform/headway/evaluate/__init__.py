"""What is done with a trained run: judge, predict, generate, score, translate, export.

Each reads a run folder and nothing else; `evaluation` also loads the recipe's data.
"""
