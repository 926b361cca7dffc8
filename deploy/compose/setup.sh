#!/bin/sh
# Schema, topics, keys and a first token, each made only if it is not there yet.
set -eu
umask 0027
cp /shards.toml /etc/spillway/shards.toml

export SPILLWAY__MYSQL__USER=spillway_migrate
export SPILLWAY__MYSQL__PASSWORD_FILE=/run/secrets/mysql-migrate
program migrate --yes

export SPILLWAY__MYSQL__USER=spillway_console
export SPILLWAY__MYSQL__PASSWORD_FILE=/run/secrets/mysql-console
program topics create --replication-factor 1 --yes

if ! ls /etc/spillway/keys/*.key > /dev/null 2>&1; then
    program keys create --yes
fi
if [ ! -e /etc/spillway/tokens.toml ]; then
    program token create --environment demo --yes
fi
# The programs run as uid 10001 in their containers.
chown -R root:10001 /etc/spillway
chmod -R u=rwX,g=rX,o= /etc/spillway
