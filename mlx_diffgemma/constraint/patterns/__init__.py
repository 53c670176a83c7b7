"""Regular expressions, read into the expressions that automata are made of.

pattern          what to import: a pattern, and the dialect in which it is written -> an expression
pattern_parser   its groups, repetitions and escapes; classes reads what stands in brackets, dialect what differs
resolution       anchors, word boundaries and look-arounds are resolved by what stands before and after them
                 (neighbours, sequences, assertions)
"""
