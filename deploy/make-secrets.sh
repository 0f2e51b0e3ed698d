#!/bin/sh
# Create the missing secrets in deploy/secrets, one file for each setting: the URL of Redis with its
# password, an API key named "default", and the secret that signs webhooks.
#
# Only you can enter the folder. The files must be readable for all, because Compose mounts them as
# they are and no container runs as their owner.
set -eu
cd "$(dirname "$0")/secrets"
chmod 700 .
umask 077

make() { # NAME VALUE: keeps an existing file
    [ -s "$1" ] || printf '%s' "$2" >"$1"
    chmod 444 "$1"
}
hexadecimal() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

make gamma_redis_url "redis://:$(hexadecimal)@redis:6379/0"
make gamma_api_keys "default=$(hexadecimal)"
make gamma_webhook_secrets "whsec_$(head -c 32 /dev/urandom | base64 | tr -d '\n')"
echo "API key: $(sed -n 's/^default=//p' gamma_api_keys)"
