"""What an answer must match, kept at every step.

    pattern_of       regex | json_schema | choices -> one pattern
    compiled         pattern -> automaton over bytes                     outlines-core
    over_tokens      and what bytes every token adds -> over tokens      numpy; kept on disk by `store`
    most_probable    and how likely tokens are at every position -> the best text that matches

Nothing here knows the model or MLX. Why these parts: of the libraries that compile a schema for a vocabulary,
outlines-core shows its automaton, as regular expressions only; llguidance and xgrammar know more of JSON schema, but
answer which tokens may come next at one place, and have no states that a search over all positions could count on. Of
outlines-core the translation of schemas is not used (it passes over keywords that it does not know), nor is its index
over a large vocabulary, whose size is states times tokens.
"""
