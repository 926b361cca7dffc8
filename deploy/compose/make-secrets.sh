#!/bin/sh
# Makes the passwords that compose.yaml hands to the containers; never overwrites one.
set -eu
folder="$(dirname "$0")/secrets"
mkdir -p "$folder"
for name in mysql-root mysql-migrate mysql-consumer mysql-keeper mysql-console; do
    if [ ! -e "$folder/$name" ]; then
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name"
        # The containers' users are other ones than yours.
        chmod 0644 "$folder/$name"
        echo "made $folder/$name"
    fi
done
