#!/usr/bin/env bash
# GET /healthz and GET /readyz: is the node well, and does it take new work. Public, in every mode.
. "$(dirname "$0")/lib.sh"
serve

page "A node that is well"
ask "$url/healthz"
status 200
header "content-type: application/json; charset=utf-8"
json .service mswarm-self-hosted-node
json .status ok
json .node_id "$(node node status --json | jq -r .running.node_id)"

page "Without the body"
ask -I "$url/healthz"
status 200

page "Ready for work"
ask "$url/readyz"
status 200
json .status ready

page "Draining: alive, but nothing new is taken; acts at once, and can be taken back"
node drain all
ask "$url/readyz"
status 503
json .status not_ready
json .reason node_draining
ask "$url/healthz"
status 200
ask "$url/v1/chat/completions" --json '{"model": "demo", "messages": [{"role": "user", "content": "hi"}]}'
status 503
header "retry-after: 1"
json .error.code node_draining
node drain off
ask "$url/readyz"
status 200

page "Only the names of this machine: a rebound name cannot drive the node"
ask "$url/healthz" -H 'Host: evil.example'
status 403
json .code host_denied

page "What is not served, and how it must not be asked for"
ask "$url/nowhere"
status 404
json .error not_found
ask -X DELETE "$url/healthz"
status 405
header "allow: GET, HEAD"
