"""Constraints on real JSON schemas, and hard constraints: what is built, how fast, and whether its texts are right.

cases       a file of schemas with instances -> Case
ours        the only module that builds this project's automata
engines     ours, llguidance, outlines-core, and the demo model: schema -> Matcher
walks       random texts that an automaton over bytes accepts
validity    what `jsonschema` says of a text
instances   how an instance is written, and why a valid one may be refused
watching    a process that is ended when an item takes too long
judging     engine, Case -> Outcome                                                   in a process that is watched
report      outcomes -> tables
hard        constraints that are hard to build, and what each costs
"""
