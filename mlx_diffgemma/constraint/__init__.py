"""What a text must match, as an automaton over tokens, and the most probable text that matches. Without MLX.

spec             what the user says: Regex, JsonSchema, Choices
schema_source    a dict, a file, a model, JSON, a wrapper -> the schema      (short_form: 'name, age int' -> the schema)
description      a constraint -> an expression of the texts that it allows   (characters, expression: what that is)
patterns/        regular expressions -> expressions
schema/          JSON schemas -> expressions
automata/        expressions -> automata over bytes, over tokens; the search
cache            keeps finished automata on disk
"""
