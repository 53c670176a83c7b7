"""Automata over bytes and over tokens, and the most probable text that one accepts. Without MLX.

    graph, nondeterministic   an expression -> an automaton in which a text may be read in several ways
    byte_automaton            -> one in which every text is read in one way                  (minimal: with few states)
    words                     the same for long lists of texts, on arrays
    token_reading             automaton over bytes, and the bytes of every token -> token_automaton
    search                    token_automaton, and the logits of every position of a canvas -> the most probable text
    thinking                  a token_automaton that allows a thought before the answer

Why our own code. Libraries that compile a schema for a vocabulary answer one question, which tokens may come next at
one position; a search over all positions at once needs states that it can count on. outlines-core shows its states, but
its automaton takes twice the time for every further repetition of a class after a text that the class may begin with.
"""
