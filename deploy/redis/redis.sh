#!/bin/sh
# redis.sh serve | ping
#
# The password is in one place, the URL that API and workers use. The server gets it by standard
# input and the client by the environment, never as an argument, which every user of the host can
# see.
set -eu
umask 077 # pictures are in the files
here=$(dirname "$0")
secret=${GAMMA_REDIS_URL_FILE:-/run/secrets/gamma_redis_url}
password=$(sed -nE 's|^redis://[^:@/]*:([0-9A-Za-z]+)@.*$|\1|p' "$secret")
if [ -z "$password" ]; then
    echo "$secret must read redis://:PASSWORD@redis:6379/0, PASSWORD of letters and digits" >&2
    exit 1
fi
case ${1-} in
serve)
    shift
    exec valkey-server "$here/redis.conf" "$@" - <<CONFIG
requirepass $password
CONFIG
    ;;
ping)
    # While the server loads its file it answers, but not with PONG.
    shift
    answer=$(VALKEYCLI_AUTH=$password REDISCLI_AUTH=$password valkey-cli "$@" ping)
    [ "$answer" = PONG ]
    ;;
*)
    echo "usage: redis.sh serve|ping" >&2
    exit 2
    ;;
esac
