#!/usr/bin/env bash
# Generic jobs: create, read, cancel, retry, ops, capabilities (R2, R6, R8 to R15); T1 to T11, T14 to T17 of the protocol.
. "$(dirname "$0")/lib.sh"
serve --generic-job-max-concurrency 2
id=$(node node status --json | jq -r .running.node_id)
secret=$(cat "$home/.mswarm/self-hosted-node/signing.key")
token() { node token --scope generic --job "$1" --request "${2:-r1}" --job-type "${3:-tenant.test-echo}" --schema-version 2026-06-14; }
ops=$(node token --scope ops)
capabilities=$(node token --scope capabilities)
envelope() { # JOB REQUEST ARGS [MEMBERS]
	jq -nc --arg id "$id" --arg job "$1" --arg request "$2" "{job_id: \$job, request_id: \$request, node_id: \$id,
		job: ({schema_version: \"2026-06-14\", job_type: \"tenant.test-echo\", args: $3, policy: {trust_mode: \"owner-local\"}} + ${4:-{\}})}"
}
create() { # JOB REQUEST ARGS [MEMBERS] [TYPE]
	ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs" -H "authorization: Bearer $(token "$1" "$2" "${5:-}")" --json "$(envelope "$1" "$2" "$3" "${4:-}")"
}
get() { # JOB [REQUEST] [TYPE]
	ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/$1" -H "authorization: Bearer $(token "$1" "${2:-r1}" "${3:-}")"
}
await() { # JOB STATE [TYPE]
	until get "$1" r1 "${3:-}" >/dev/null && [ "$(jq -r .job.state <<<"$heard_body")" = "$2" ]; do kill -0 "${nodes[-1]}"; done
}

page "T1 What the node can do"
ask "$url/v1/swarm/self-hosted/node/capabilities" -H "authorization: Bearer $capabilities"
status 200
json '.job_types | join(" ")' tenant.test-echo
json .accelerators.gpu.vram_tier none

page "T2 How the job plane stands"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/ops?audit_limit=2" -H "authorization: Bearer $ops"
status 200
json .audit.limit 2
json '.queue.jobs | type' array

page "T3, T19 Create: queued, and nothing of the token comes back"
create j1 r1 '{message: "hi"}'
status 202
json .job.state queued
if [[ $heard_body == *"$secret"* || $heard_body == *"$(token j1)"* ]]; then exit 1; fi

page "T4 Read, with a token of another request"
await j1 succeeded
get j1 r-other
status 200

page "T5 Events"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j1/events" -H "authorization: Bearer $(token j1)"
status 200
json '[.events[].type] | join(" ")' "started stdout progress completed"
json '[.events[].sequence] | join(" ")' "0 1 2 3"

page "T6 Logs"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j1/logs" -H "authorization: Bearer $(token j1)"
json '.logs | length' 1
json '.logs[0] | "\(.message) \(.sequence) \(.truncated)"' "hi 1 false"

page "T7 Artifacts, and the audit trail"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j1/artifacts" -H "authorization: Bearer $(token j1)"
json '.artifacts | length' 0
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j1/audit" -H "authorization: Bearer $(token j1)"
json '.audit[0].action' job_created

page "T8 Cancel what has ended, without body and content type"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j1/cancel" -X POST -H "content-length: 0" -H "authorization: Bearer $(token j1)"
status 202
json .job.state succeeded

page "T9 Retry what has succeeded"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j1/retry" -X POST -H "content-length: 0" -H "authorization: Bearer $(token j1)"
status 400
json .message job_retry_not_allowed_for_succeeded_jobs

page "T10, T11 The same again, and under another request"
create j1 r1 '{message: "hi"}'
status 200
json '.audit[-1].action' job_idempotent_reused
create j1 r2 '{message: "hi"}'
status 409
json .code idempotency_key_conflict

page "T14 Ops with a token for jobs"
ask "$url/v1/swarm/self-hosted/node/generic-job-control/ops" -H "authorization: Bearer $(token j1)"
status 401
json .message self_hosted_generic_job_ops_token_scope_denied

page "T15 Cancel what runs"
create j2 r1 '{message: "tick", delay_ms: 300, repeat: 10}'
status 202
await j2 running
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j2/cancel" -X POST -H "content-length: 0" -H "authorization: Bearer $(token j2)"
status 202
await j2 cancelled
json .job.result.error.code cancelled
json '.job.reservation.released_at | type' string

page "T16 A job that this machine cannot run"
create j3 r1 '{}' '{job_type: "render.blender"}' render.blender
status 202
await j3 blocked render.blender
json .job.backpressure.reason no_capable_node
ask "$url/v1/swarm/self-hosted/node/generic-job-control/jobs/j3/retry" -X POST -H "content-length: 0" -H "authorization: Bearer $(token j3 r1 render.blender)"
status 202
json .job.state queued
json .job.retry.retry_count 1
json .job.result null

page "T17 Tenants in turn"
create ja r1 '{delay_ms: 3000}' '{metadata: {tenant_id: "A"}}'
await ja running
create jb r1 '{}' '{metadata: {tenant_id: "B"}}'
get jb
json .job.backpressure.reason tenant_reserved
await jb succeeded

page "T18 Run one job inside the request, as a stream and plain"
run() { # JOB ARGS CURL-ARGS
	ask "$url/v1/swarm/self-hosted/node/generic-jobs" -H "authorization: Bearer $(token "$1")" --json "$(envelope "$1" r1 "$2")" "${@:3}"
}
run d1 '{message: "two", repeat: 2}' -H "accept: text/event-stream"
status 200
header "content-type: text/event-stream; charset=utf-8"
[ "$(events | tail -n 1)" = "[DONE]" ]
[ "$(grep -c '^event: stdout$' "$work/body")" = 2 ]
run d1 '{message: "plain"}'
status 200
json .status succeeded
json '[.events[].type] | join(" ")' "started stdout progress completed"

page "Stop such a job"
ask "$url/v1/swarm/self-hosted/node/generic-jobs/d1/cancel" -X POST -H "content-length: 0" -H "authorization: Bearer $(token d1)"
status 404
json .code job_not_running
