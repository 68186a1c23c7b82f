#!/bin/sh
# Prints where redis-server is, or why there is none. It is installed if it is missing and there is apt-get.
set -eu

fail() {
    echo "redis-server cannot be installed: $1"
    exit 1
}

if ! command -v redis-server >/dev/null; then
    command -v apt-get >/dev/null || fail "install Redis 6 or newer first"
    { apt-get update && apt-get install -y --no-install-recommends redis-server; } >&2 \
        || fail "apt-get found no redis-server"
fi
command -v redis-server
