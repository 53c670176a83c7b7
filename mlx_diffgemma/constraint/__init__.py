"""What a text must match, as an automaton over tokens, and the most probable text that matches. Without MLX.

    spec              regex, JSON schema or list of choices -> one regular expression
    byte_automaton    regular expression -> automaton over bytes                                    (outlines-core)
    token_automaton   automaton over bytes, and the bytes of every token -> automaton over tokens   (numpy)
    cache             keeps finished automata on disk
    search            automaton, and the logits of every position of a canvas -> the most probable text that matches

Why our own code from the second line on. Of the libraries that compile a schema for a vocabulary, only outlines-core
shows its automaton. llguidance and xgrammar support more of JSON schema, but answer one question, which tokens may come
next at one position; a search over all positions at once needs states that it can count on.

Two parts of outlines-core are not used: its translation of schemas, which skips keywords that it does not know, and its
index over a large vocabulary, whose size is the number of states times the number of tokens.
"""
