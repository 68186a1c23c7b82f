#!/bin/sh
# Installs oidc-provider, a certified OpenID Connect server, into the folder given, and runs it until
# standard input ends. Prints its origin, or why there is none. Needs Node.js 18 or newer, which is installed if it is missing
# and there is apt-get.
set -eu
version=8.8.1 # the last that runs on Debian 12's Node.js
here=$(cd "$(dirname "$0")" && pwd)
folder=$1

fail() {
    echo "the OAuth server cannot be installed: $1"
    exit 1
}

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    command -v apt-get >/dev/null || fail "install Node.js and npm first"
    { apt-get update && apt-get install -y --no-install-recommends nodejs npm; } >&2 \
        || fail "apt-get found no Node.js"
fi

mkdir -p "$folder"
cd "$folder"
if [ ! -e "installed-$version" ]; then
    npm install --prefix . --no-save --no-audit --no-fund --ignore-scripts "oidc-provider@$version" >&2 \
        || fail "npm could not fetch oidc-provider@$version"
    touch "installed-$version"
fi
# Modules are looked for beside the script.
cp "$here/oauth_server.mjs" server.mjs
exec node server.mjs
