#!/bin/sh
# redis.sh serve [OPTION …]     run the server
# redis.sh ping                 is it ready?
# redis.sh backup FOLDER KEEP   save a snapshot of the running server; the newest KEEP remain
# redis.sh restore FILE         put a snapshot into an empty working folder; else do nothing
#
# The password is in one place, the URL that API and workers use. The server gets it by standard
# input and the client by the environment, never as an argument, which every user of the host can
# see.
set -eu
umask 077 # pictures are in the files
here=$(dirname "$0")
command=${1-}
[ $# -eq 0 ] || shift

if [ "$command" = restore ]; then
    if [ -e appendonlydir ]; then
        echo "there are data: nothing is restored"
        exit 0
    fi
    rm -rf restored
    mkdir restored
    cp "$1" restored/appendonly.aof.1.base.rdb
    echo "file appendonly.aof.1.base.rdb seq 1 type b" >restored/appendonly.aof.manifest
    mv restored appendonlydir
    exit 0
fi

secret=${GAMMA_REDIS_URL_FILE:-/run/secrets/gamma_redis_url}
url='^redis://[^:@/]*:([0-9A-Za-z]+)@([^:/]+)(:([0-9]+))?.*$'
password=$(sed -nE "s|$url|\\1|p" "$secret")
if [ -z "$password" ]; then
    echo "$secret must read redis://:PASSWORD@redis:6379/0, PASSWORD of letters and digits" >&2
    exit 1
fi
case $command in
serve)
    exec valkey-server "$here/redis.conf" "$@" - <<CONFIG
requirepass $password
CONFIG
    ;;
ping)
    # While the server loads its file it answers, but not with PONG.
    answer=$(VALKEYCLI_AUTH=$password REDISCLI_AUTH=$password valkey-cli "$@" ping)
    [ "$answer" = PONG ]
    ;;
backup)
    folder=$1 keep=$2
    file=$folder/redis-$(date -u +%Y%m%dT%H%M%SZ).rdb
    host=$(sed -nE "s|$url|\\2|p" "$secret")
    port=$(sed -nE "s|$url|\\4|p" "$secret")
    rm -f "$folder"/*.part # of an interrupted run
    VALKEYCLI_AUTH=$password REDISCLI_AUTH=$password \
        valkey-cli -h "$host" -p "${port:-6379}" --rdb "$file.part"
    mv "$file.part" "$file"
    for old in $(ls "$folder" | grep '^redis-.*\.rdb$' | sort -r | tail -n "+$((keep + 1))"); do
        rm "$folder/$old"
    done
    ;;
*)
    echo "usage: redis.sh serve|ping|backup|restore" >&2
    exit 2
    ;;
esac
