"""A JSON schema as an expression of its JSON texts.

    keywords     what the keywords of a schema must be, and which are annotations
    location     where a part of a schema is, and where its references lead
    shapes       what a schema allows, type by type; two schemas met
    reading      a part of a schema -> shapes
    negation     what a part of a schema does not allow -> shapes
    numbers, strings, formats      values of one type -> expressions
    writing      shapes -> expressions, to a depth where a schema refers to itself

Every text of the expression is valid for the schema: every keyword is kept, or is an annotation, or is refused with a
ConstraintError that names it. Not every valid text is one of the expression: an object has its properties in the order
of the schema, blanks are allowed only where programs write them, and what no automaton can hold is narrowed: recursion
and free values to a depth, very long texts and lists to a length. What was narrowed is said in notes.
"""
