#!/usr/bin/env bash
# GET /: a page for people, with the address, the models, and a line to try.
. "$(dirname "$0")/lib.sh"
serve

page "The page"
ask "$url/"
status 200
header "content-type: text/html; charset=utf-8"
header "x-content-type-options: nosniff"
text "$url/v1"
text demo

page "Its curl line works as it stands"
line=$(python3 -c 'import html, re, sys; print(html.unescape(re.search("<pre[^>]*>(curl .*?)</pre>", sys.stdin.read(), re.S)[1]))' <"$work/body")
printf '$ %s\n' "$line"
bash -c "$line" 2>/dev/null | grep -q '^data: \[DONE\]'

page "With keys on, it asks for one as everything else does"
node keys add page --json >"$work/key"
ask "$url/"
status 401
ask "$url/" -H "authorization: Bearer $(jq -r .key "$work/key")"
status 200
