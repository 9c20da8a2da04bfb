#!/bin/sh
# pass, fail and inconclusive are all answers (0, 1, 5): only a run that could not answer fails here.
.venv/bin/assay run matrices/quickstart.yaml
code=$?
case $code in
    0 | 1 | 5) exit 0 ;;
    *) exit $code ;;
esac
