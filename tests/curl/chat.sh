#!/usr/bin/env bash
# POST /v1/chat/completions: a chat, plain and as a stream, and what is refused.
. "$(dirname "$0")/lib.sh"
serve
chat=$url/v1/chat/completions

page "A plain answer"
ask "$chat" --json '{"model": "demo", "messages": [{"role": "user", "content": "one two"}]}'
status 200
header "content-type: application/json; charset=utf-8"
json .object chat.completion
json .model demo
json '.choices[0].message.role' assistant
json '.choices[0].message.content' "(mswarm demo, not a model) one two"
json '.choices[0].finish_reason' stop
json '.usage | [.prompt_tokens, .completion_tokens, .total_tokens] | join(" ")' "2 7 9"
grep -qi '^x-request-id: req_' <<<"$heard_head"

page "A stream: server-sent events, one id for all, ended by [DONE]"
ask "$chat" --json '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "one two"}]}'
status 200
header "content-type: text/event-stream; charset=utf-8"
header "cache-control: no-cache"
[ "$(events | tail -n 1)" = "[DONE]" ]
[ "$(events | head -n -1 | jq -r '.choices[0].delta.content // ""' | tr -d '\n')" = "(mswarm demo, not a model) one two" ]
[ "$(events | head -n -1 | jq -r .id | sort -u | wc -l)" = 1 ]
[ "$(events | head -n -1 | jq -r 'has("usage")' | sort -u)" = false ]

page "The usage comes in a last chunk if it is asked for"
ask "$chat" --json '{"model": "demo", "stream": true, "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "one two"}]}'
[ "$(events | tail -n 2 | head -n 1 | jq -c '[.choices, .usage.total_tokens]')" = "[[],9]" ]

page "Mistakes are named with the path to them"
ask "$chat" --json '{"model": "demo"}'
status 400
json .error.type invalid_request_error
json .error.param messages
json .error.code missing_required_parameter
ask "$chat" --json '{"model": "demo", "messages": [{"role": "user", "content": 5}]}'
status 400
json .error.param 'messages[0].content'
ask "$chat" --json '{"model": "demo", "messages": [{"role": "user", "content": "hi"}], "temperature": 9}'
status 400
json .error.param temperature
ask "$chat" --json '{"model": "demo", "messages": ['
status 400
ask "$chat" --json '{"model": "none", "messages": [{"role": "user", "content": "hi"}]}'
status 404
json .error.code model_not_found

page "No body, and one that is too large: told before it is sent"
ask -X POST "$chat" -H 'content-type: application/json'
status 400
head -c 40000000 /dev/zero >"$work/large"
ask "$chat" -H 'content-type: application/json' --data-binary "@$work/large" -H 'expect: 100-continue'
status 413
json .error.type invalid_request_error

page "With a key: who may call, how often"
node keys add slow --rpm 2 --json >"$work/key"
ask "$chat" --json '{"model": "demo", "messages": [{"role": "user", "content": "hi"}]}'
status 401
json .error.code invalid_api_key
for want in 200 200 429; do
	ask "$chat" -H "authorization: Bearer $(jq -r .key "$work/key")" --json '{"model": "demo", "messages": [{"role": "user", "content": "hi"}]}'
	status $want
done
json .error.code rate_limit_exceeded
grep -qi '^retry-after: [1-9]' <<<"$heard_head"
