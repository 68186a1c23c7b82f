#!/bin/sh
# Runs HAProxy and nginx before the HTTP server at the port given, until standard input ends. Both answer 401 to
# `Bearer token-1` before they have read the body. Prints a line when they are about to listen.
#
# proxies.sh FOLDER BACKEND HAPROXY HAPROXY_H2 NGINX NGINX_H2
#
# The last five are ports on 127.0.0.1. Those named H2 speak HTTP/2 with prior knowledge, the others HTTP/1.1.
set -eu
folder=$1 backend=$2 haproxy=$3 haproxy_h2=$4 nginx=$5 nginx_h2=$6
PATH=$PATH:/usr/sbin

mkdir -p "$folder"
cat >"$folder/haproxy.cfg" <<EOF
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend uploads
    bind 127.0.0.1:$haproxy
    bind 127.0.0.1:$haproxy_h2 proto h2
    http-request deny deny_status 401 if { req.hdr(authorization) -m str "Bearer token-1" }
    default_backend api
backend api
    server api 127.0.0.1:$backend
EOF
cat >"$folder/nginx.conf" <<EOF
daemon off;
pid $folder/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    client_max_body_size 0;
    lingering_close off; # as a server that does not wait for the rest of an upload
    server {
        listen 127.0.0.1:$nginx;
        listen 127.0.0.1:$nginx_h2 http2;
        location / {
            if (\$http_authorization = "Bearer token-1") {
                return 401;
            }
            proxy_pass http://127.0.0.1:$backend;
        }
    }
}
EOF

haproxy -db -f "$folder/haproxy.cfg" >&2 &
one=$!
nginx -p "$folder" -e stderr -c "$folder/nginx.conf" >&2 &
other=$!
trap 'kill "$one" "$other" 2>/dev/null || true' EXIT
echo "starting"
cat >/dev/null
