# The pages of this folder: what a client says to each route, as commands, and what it hears. Sourced by each page.
#   serve [flags]        a node of its own, with the demo agent; sets $url; ends with the page
#   serve_behind [flags] a node whose runner "lab" is another mswarm with the demo agent
#   ask CURL-ARGS        runs curl; then: status N, header "name: value", text "substring", json FILTER VALUE (jq)
# A page that hears something else ends with 1, what it heard, and the node's log. MSWARM_BIN: the program.
set -euo pipefail
mswarm=${MSWARM_BIN:-$(dirname "${BASH_SOURCE[0]}")/../../build/mswarm}
work=$(mktemp -d)
nodes=()

finish() {
	local code=$?
	for pid in "${nodes[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null
	if [ $code -ne 0 ]; then
		printf '\nheard:\n%s\n\n%s\n\nlog:\n' "${heard_head:-}" "${heard_body:-}"
		cat "$work"/*/log
	fi
	rm -rf "$work"
}
trap finish EXIT

start() { # NAME FLAGS: a node with the home $work/NAME; sets $url and $home
	home=$work/$1
	shift
	mkdir -p "$home"
	env -i PATH="$PATH" HOME="$home" "$mswarm" serve --listen-port 0 --no-mcoda --no-ollama --no-discovery "$@" >"$home/out" 2>"$home/log" &
	nodes+=($!)
	until url=$(sed -n 's|.* on \(127.0.0.1:[0-9]*\)$|http://\1|p' "$home/out") && [ -n "$url" ]; do
		kill -0 "${nodes[-1]}"
	done
}

serve() { start node --demo "$@"; }

serve_behind() {
	start runner --demo
	mkdir -p "$work/node/.mswarm/self-hosted-node"
	chmod 700 "$work/node/.mswarm/self-hosted-node"
	jq -n --arg url "$url/v1" '{upstreams: [{name: "lab", base_url: $url, share: true}]}' >"$work/node/.mswarm/self-hosted-node/config.json"
	start node "$@"
	until curl -s "$url/v1/models" | grep -q '"demo"'; do kill -0 "${nodes[-1]}"; done
}

node() { env -i PATH="$PATH" HOME="$home" "$mswarm" "$@"; } # a command beside the running node

page() { printf '\n# %s\n' "$*"; }

ask() {
	printf '$ curl'
	printf ' %q' "$@"
	printf '\n'
	curl -sS -N --max-time 30 -D "$work/head" -o "$work/body" "$@"
	heard_head=$(tr -d '\r' <"$work/head" | sed '/^HTTP\/1.1 100/,/^$/d')
	heard_body=$(cat "$work/body")
}

status() { [ "$(awk 'NR == 1 { print $2 }' <<<"$heard_head")" = "$1" ] || { echo "want: status $1"; exit 1; }; }
header() { grep -qixF "$1" <<<"$heard_head" || { echo "want: header $1"; exit 1; }; }
text() { [[ $heard_body == *"$1"* ]] || { echo "want: text $1"; exit 1; }; }
json() {
	local got
	got=$(jq -r "$1" <<<"$heard_body") && [ "$got" = "$2" ] || { echo "want: $1 = $2, got: ${got:-}"; exit 1; }
}
events() { sed -n 's/^data: //p' "$work/body"; } # the data of a stream, a line an event
