"""Random command lines and mangled files: what programs do with what they cannot use.

originals --mangling--> a file  --readers--> Case: program, words, files   the same for the same name, "config:17"
                        options of the programs  --command_lines--> Case
Case --sandbox, workers--> Outcome: exit code, output, files afterwards    in a process that is watched
Outcome --judging--> faults
"""
