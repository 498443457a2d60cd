#!/usr/bin/env bash
# GET /v1/models and GET /v1/models/{id}: what may be asked for, as OpenAI's clients expect it.
. "$(dirname "$0")/lib.sh"
serve

page "The list"
ask "$url/v1/models"
status 200
header "content-type: application/json; charset=utf-8"
json .object list
json '.data | length' 1
json '.data[0] | keys_unsorted | join(",")' id,object,created,owned_by
json '.data[0].id' demo
json '.data[0].owned_by' local

page "One of them"
ask "$url/v1/models/demo"
status 200
json .id demo
json .object model

page "Ids may hold slashes, plain or escaped"
ask "$url/v1/models/no/such"
status 404
json .error.message 'The model `no/such` does not exist or you do not have access to it.'
ask "$url/v1/models/no%2Fsuch"
status 404
json .error.message 'The model `no/such` does not exist or you do not have access to it.'
json .error.type invalid_request_error
json .error.param model
json .error.code model_not_found

page "A key may be for some models only"
node keys add narrow --models other --json >"$work/key"
ask "$url/v1/models"
status 401
header "www-authenticate: Bearer"
json .error.code invalid_api_key
ask "$url/v1/models" -H "authorization: Bearer $(jq -r .key "$work/key")"
status 200
json '.data | length' 0

page "Revoked: in force before the command returns"
node keys revoke "$(jq -r .id "$work/key")"
ask "$url/v1/models" -H "authorization: Bearer $(jq -r .key "$work/key")"
status 401
