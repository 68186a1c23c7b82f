#!/bin/sh
# Runs oidc-provider, a certified OpenID Connect server, until standard input ends. It is in the folder given, where
# `.ci/servers` installs it. Prints its origin.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
# Modules are looked for beside the script.
cp "$here/oauth_server.mjs" server.mjs
exec node server.mjs
