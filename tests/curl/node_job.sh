#!/usr/bin/env bash
# POST /v1/swarm/self-hosted/node/jobs (R3): one invocation job, with a token that was made for it.
. "$(dirname "$0")/lib.sh"
serve_behind
jobs=$url/v1/swarm/self-hosted/node/jobs
id=$(node node status --json | jq -r .running.node_id)
token=$(node token --scope invoke --job j1 --request r1 --model demo)
job() { # STREAM MEMBERS
	jq -nc --arg id "$id" "{job_id: \"j1\", request_id: \"r1\", node_id: \$id, agent_slug: \"demo\",
		openai_request: {model: \"demo\", stream: $1, messages: [{role: \"user\", content: \"one two\"}]}} + ${2:-{\}}"
}

page "A plain turn"
ask "$jobs" -H "authorization: Bearer $token" --json "$(job false)"
status 200
json .job_id j1
json .status success
text "(mswarm demo, not a model) one two"

page "As a stream"
ask "$jobs" -H "authorization: Bearer $token" --json "$(job true)"
status 200
header "content-type: text/event-stream; charset=utf-8"
[ "$(events | tail -n 1)" = "[DONE]" ]
text '"(mswarm"'

page "Without a token, with a wrong one, and for another job"
ask "$jobs" --json "$(job false)"
status 401
ask "$jobs" -H "authorization: Bearer $token.x" --json "$(job false)"
status 401
ask "$jobs" -H "authorization: Bearer $token" --json "$(job false '{job_id: "j2"}')"
status 400
json .message "job_id does not match invocation token"

page "A body that is none"
ask "$jobs" -H "authorization: Bearer $token" --json '{'
status 400
