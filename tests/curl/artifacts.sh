#!/usr/bin/env bash
# Files of jobs: R7 (T12, T13 of the protocol), and what this node adds: PUT, PATCH, GET with ranges, HEAD, DELETE.
. "$(dirname "$0")/lib.sh"
serve
id=$(node node status --json | jq -r .running.node_id)
token() { node token --scope generic --job "$1" --request r1 --job-type tenant.test-echo --schema-version 2026-06-14; }
job1="authorization: Bearer $(token job1)"

page "T12 Upload a file inside JSON"
file='{"name":"up.txt","path":"up.txt","content_base64":"aGVsbG8=","sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size_bytes":5}'
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts" -H "$job1" --json "$file"
status 201
json .artifact.uri artifact://local/job1/up.txt
json .artifact.id upload_2cf24dba5fb0a30e

page "T13 Once more: it is there"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts" -H "$job1" --json "$file"
status 400
json .message artifact_upload_target_exists

page "Upload a file as it is"
printf 'scene' >"$work/scene.blend"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/scenes/a.blend" -H "$job1" -T "$work/scene.blend"
status 201
json .artifact.uri artifact://local/job1/scenes/a.blend

page "Download it, and a part of it"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/scenes/a.blend" -H "$job1"
status 200
text scene
etag=$(sed -n 's/^etag: //ip' <<<"$heard_head")
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/scenes/a.blend" -H "$job1" -r 1-2 -H "if-range: $etag"
status 206
header "content-range: bytes 1-2/5"
[ "$heard_body" = ce ]

page "An upload in pieces: begin, ask how far it is, go on"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/big" -H "$job1" -X PUT -H "upload-complete: ?0" --data-binary "first "
status 201
header "upload-offset: 6"
ask -I "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/big" -H "$job1"
status 204
header "upload-offset: 6"
header "upload-complete: ?0"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/big" -H "$job1" -X PATCH -H "upload-offset: 6" -H "upload-complete: ?1" --data-binary "second"
status 201
json .artifact.size_bytes 12

page "It is an input of another job"
envelope=$(jq -nc --arg id "$id" '{job_id: "job2", request_id: "r1", node_id: $id, job: {schema_version: "2026-06-14", job_type: "tenant.test-echo",
	args: {message: "hi"}, policy: {trust_mode: "owner-local"},
	inputs: [{name: "scene", mount_path: "scene.blend", required: true, artifact: {uri: "artifact://local/job1/scenes/a.blend"}}]}}')
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs" -H "authorization: Bearer $(token job2)" --json "$envelope"
status 202
until ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job2" -H "authorization: Bearer $(token job2)" >/dev/null &&
	[ "$(jq -r .job.state <<<"$heard_body")" = succeeded ]; do kill -0 "${nodes[-1]}"; done

page "Remove it"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/scenes/a.blend" -H "$job1" -X DELETE
status 204
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/job1/artifacts/scenes/a.blend" -H "$job1"
status 404
json .code artifact_not_found
