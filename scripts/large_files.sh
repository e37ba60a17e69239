#!/bin/sh
# Fail for files above 1 MB: they stay in the history of every clone for good.
status=0
for name; do
    if [ -n "$(find "$name" -maxdepth 0 -type f -size +1000k)" ]; then
        printf '%s: larger than 1 MB; photographs belong into data/, networks into weights/\n' "$name" >&2
        status=1
    fi
done
exit $status
